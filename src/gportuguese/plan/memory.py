"""Memory of one training step, counted by running the program's own step on fake tensors.

Fake tensors have shapes and a device but no data. They count any decoder, with any settings, without a
formula for each. PyTorch cannot run a backward pass on fake CUDA tensors without a GPU, so the tensors
are always on the CPU, and `CudaKernels` imitates the operations that differ on a GPU.
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
from gportuguese.plan.shape import is_head_last, make_model, trained_parameters
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
    """The memory of one step of a model of this shape, counted on fake tensors."""
    if head_is_last is None:
        head_is_last = is_head_last(shape)
    with FakeTensorMode(), torch.device("cpu"):
        return count_model_memory(make_model(shape).train(), config, step, head_is_last)


def count_model_memory(
    model: PreTrainedModel, config: Config, step: Step, head_is_last: bool
) -> StepMemory:
    """The memory of one step of a real or fake model. Clears its gradients.

    The optimizer's state exists before the step, as in every step but the first.
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
    groups, trainable = causal_lm.parameter_groups(model), trained_parameters(model, step)
    model.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)
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
    if step.new_rows is not None:  # `TrainableRows` keeps the values of the other rows
        fixed = [torch.empty_like(p[step.new_rows :]) for p in trainable]
        ledger.enter(*fixed)
    if step.passes > 1:  # from the second pass on, gradients exist before the pass
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
    """Runs a forward and backward pass and the update."""
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
    """Calls a function as the step's device would run it. Backward passes need no imitation."""
    with CudaKernels() if step.device == "cuda" else nullcontext():
        return function(*args, **kwargs)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operators create while it is active, and their peak.

    It counts real and fake tensors alike, because both are freed when nothing refers to them. It does
    not see temporary memory inside one operator.
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
    """Makes fake CPU tensors take the memory that they would take on CUDA.

    There, attention keeps no T x T matrix, dropout keeps masks of bytes, and autocast runs more functions
    in float32.
    """

    # functions of a causal LM that are in CUDA's autocast list for float32 but not in the CPU's
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
    """Keeps query, key, value, output and one number per row, as all fused kernels of CUDA do."""
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
    """Ends the loss's loop over cached rows after two rounds; later rounds take no more memory.

    On the CPU it has 256 rounds for 8 x 1,024 tokens, half the operators of a step of GPT-2 small.
    """
    whole = losses._differentiate

    def two_rounds(logits_RP: Any, targets_R: Any, nats_R: Any, *args: Any) -> None:
        rows = slice(2 * args[-1])
        whole(logits_RP[rows], targets_R[rows], nats_R[rows], *args)

    losses._differentiate = two_rounds  # type: ignore[assignment]
    try:
        yield
    finally:
        losses._differentiate = whole
