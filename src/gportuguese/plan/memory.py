"""Memory of one training step, counted by running it on fake tensors.

Fake tensors hold no data but know a device: autocast, dropout and attention work as on the CPU.
Where a GPU does otherwise, `CudaKernels` does too, on machines without a GPU. So what is counted is
the program's own step, not a formula for it.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

from gportuguese import causal_lm
from gportuguese import loss as losses
from gportuguese.config import Config
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.schedule import Step
from gportuguese.plan.shape import is_head_last, make_model
from gportuguese.precision import autocast
from gportuguese.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes of tensors in one process."""

    weights: int
    optimizer_state: int
    rest: int
    """Gradients, activations, logits and copies of weights at the peak."""

    @property
    def peak_bytes(self) -> int:
        """The most that tensors take at any moment."""
        return self.weights + self.optimizer_state + self.rest


def count_memory(
    config: Config, shape: Any, step: Step, head_is_last: bool | None = None
) -> StepMemory:
    """Runs one step of the model on fake tensors and counts."""
    if head_is_last is None:
        head_is_last = is_head_last(shape)
    with FakeTensorMode(), torch.device("cpu"):
        return count_model_memory(make_model(shape).train(), config, step, head_is_last)


def count_model_memory(
    model: PreTrainedModel, config: Config, step: Step, head_is_last: bool
) -> StepMemory:
    """Counts one step of a real or fake model, whose gradients are cleared.

    The optimizer's moments exist before, as in every step but the first.
    """
    runtime = dataclasses.replace(config.runtime, activation_checkpointing=False, tf32=False)
    model.to = lambda *_: model  # fake parameters cannot be moved
    causal_lm.prepare_model(model, dataclasses.replace(config, runtime=runtime), World("cpu", 1))
    del model.to
    if step.activation_checkpointing:
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        for block in causal_lm.block_list(model):
            block.forward = partial(again, partial(_within, step, block.forward))
    loss = losses.HeadLoss(
        model,
        chunk_rows=step.loss_rows,
        vocab_multiple=step.vocab_multiple,
        head_is_last=head_is_last,
        cached_rows=step.loss_rows if step.device == "cuda" else None,
    )
    groups = causal_lm.parameter_groups(model)
    for parameter in (p for group in groups[: -step.trainable_groups] for p in group):
        parameter.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(model, groups, config.train)
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    ledger = Ledger()
    weights = ledger.enter(*model.parameters())
    state = ledger.enter(*tree_leaves(list(optimizer.state.values())))
    # DDP sends gradients from buckets, a second copy of them
    buckets = torch.empty(causal_lm.count_parameters(trainable) if step.processes > 1 else 0)
    ledger.enter(buckets)
    if step.passes > 1:  # from the second pass on gradients are there before
        for parameter in trainable:
            parameter.grad = torch.zeros_like(parameter)
            ledger.enter(parameter.grad)
    _run(model, loss, optimizer, step, ledger)
    loss.release()
    return StepMemory(weights, state, ledger.peak - weights - state)


def _run(
    model: PreTrainedModel,
    loss: losses.HeadLoss,
    optimizer: torch.optim.Optimizer,
    step: Step,
    ledger: Ledger,
) -> None:
    """Runs a pass and the update."""
    with ledger:
        ids_BT = torch.zeros((step.micro_batch_size, step.block_size), dtype=torch.int64)
        with autocast("cpu", step.precision), _short_loop():
            hidden_BTD = losses.loss_input(_within(step, model, ids_BT))
            mean = loss(hidden_BTD, ids_BT)
        mean.backward()  # type: ignore[no-untyped-call]
        del mean, hidden_BTD
        optimizer.step()
        optimizer.zero_grad()


def _within(step: Step, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function with the kernels of the device, which a backward pass does not have itself."""
    with CudaKernels() if step.device == "cuda" else nullcontext():
        return function(*args, **kwargs)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that operators make while it is active, and the most at any moment.

    It counts real and fake tensors alike, since both are freed when nothing refers to them. It does
    not see scratch memory inside one operator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.peak = 0
        self._live = set[int]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.enter(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)))
        return result

    def enter(self, *tensors: torch.Tensor) -> int:
        """Counts the storages of tensors until they are freed; returns the bytes of new ones."""
        before = self.bytes
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._live:
                self._live.add(key)
                self.bytes += size
                weakref.finalize(storage, self._drop, key, size)
        self.peak = max(self.peak, self.bytes)
        return self.bytes - before

    def _drop(self, key: int, size: int) -> None:
        self._live.remove(key)
        self.bytes -= size


class CudaKernels(TorchFunctionMode):
    """What CUDA does otherwise than the CPU, as far as memory goes, for fake tensors of the CPU.

    Attention keeps no T x T matrix, dropout keeps masks of bytes, and autocast takes more functions
    to float32. PyTorch's autograd engine refuses fake tensors of CUDA on a machine without a GPU.
    """

    # of CUDA's autocast list for float32, what a causal LM calls and the CPU's list lacks
    # (https://docs.pytorch.org/docs/stable/amp.html)
    _IN_FLOAT32 = frozenset({
        torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, torch.rsqrt, torch.exp, torch.softmax,
        torch.Tensor.softmax, torch.Tensor.sum, torch.cumsum, functional.softmax,
        functional.softplus, functional.layer_norm,
    })  # fmt: skip

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention:
            return _flash_attention(*args, **kwargs)
        if function is functional.dropout:
            return _dropout(*args, **kwargs)
        if function in self._IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_in_float32, (args, kwargs))
        return function(*args, **kwargs)


def _flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0, **_: Any
) -> torch.Tensor:
    """Keeps query, key, value, output and a number a row, as CUDA's other fused kernels do."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return flash(query, key, value, dropout_p, True, False)[0]  # type: ignore[no-any-return]


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p else input


def _in_float32(value: Any) -> Any:
    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if is_half else value


@contextmanager
def _short_loop() -> Iterator[None]:
    """The loss's loop over cached rows ends after two turns; later ones take what the second does.

    On the CPU it has 256 turns for 8 x 1,024 tokens, half the operators of a step of GPT-2 small.
    """
    whole = losses._differentiate

    def two_turns(logits_RP: Any, targets_R: Any, nats_R: Any, *args: Any) -> None:
        rows = slice(2 * args[-1])
        whole(logits_RP[rows], targets_R[rows], nats_R[rows], *args)

    losses._differentiate = two_turns  # type: ignore[assignment]
    try:
        yield
    finally:
        losses._differentiate = whole
