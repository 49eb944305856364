"""FLOPs and memory of one training step, counted by running it on fake tensors.

Fake tensors are meta tensors that know a device: they hold no data, and autocast, dropout and
attention go the CPU's way, which on plain meta tensors they do not (there autocast does nothing).
Where a device goes another way, `Kernels` goes it, on machines without a GPU too. So what is counted
is the program's own step, not a formula for it.

Shapes: B sequences, T tokens, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from gportuguese import causal_lm
from gportuguese import loss as losses
from gportuguese.causal_lm import prepare_model
from gportuguese.config import Config
from gportuguese.loss import HeadLoss, loss_input
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.kernels import Kernels
from gportuguese.plan.ledger import PARTS, Ledger
from gportuguese.plan.shape import is_head_last, make_model
from gportuguese.precision import autocast
from gportuguese.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Step:
    """What decides the arithmetic and the memory of one optimizer step of one process."""

    device: str
    """`cpu` or `cuda`."""
    precision: str
    block_size: int
    micro_batch_size: int
    passes: int
    """Forward passes per optimizer step."""
    trainable_groups: int
    state_groups: int
    """Groups that the optimizer keeps moments of: all that were trained up to here."""
    vocab_multiple: int
    loss_rows: int
    activation_checkpointing: bool
    processes: int = 1


@dataclass(frozen=True)
class StepCount:
    """What a step takes, per token and at its peak."""

    train_flops: float
    """Per token, forward and backward, recomputation included."""
    update_flops: float
    """Per step, of the optimizer's own matrix products."""
    parameters: int
    trainable_parameters: int
    memory: dict[str, int]
    """Bytes by part (`ledger.PARTS`) at the moment of the peak; they add up to it."""
    gradient_bytes: int
    """The most that gradients take, which may be at another moment."""
    moment: str
    """`forward`, `loss`, `backward` or `update`."""

    @property
    def peak_bytes(self) -> int:
        """The most that tensors take at any moment."""
        return sum(self.memory.values())


def count_step(
    config: Config, shape: Any, step: Step, head_is_last: bool | None = None
) -> StepCount:
    """Runs one step of the model on fake tensors and counts."""
    if head_is_last is None:
        head_is_last = is_head_last(shape)
    with FakeTensorMode(), torch.device("cpu"):
        return count_model_step(make_model(shape).train(), config, step, head_is_last)


def count_model_step(
    model: PreTrainedModel, config: Config, step: Step, head_is_last: bool
) -> StepCount:
    """Counts one step of a model that is there, real or fake; its gradients are cleared.

    The optimizer's moments exist before, as in every step but the first.
    """
    loss = _prepare(model, config, step, head_is_last)
    groups = causal_lm.parameter_groups(model)
    for index, group in enumerate(groups):
        for parameter in group:
            parameter.requires_grad_(index >= len(groups) - step.trainable_groups)
    trainable = [p for group in groups[-step.trainable_groups :] for p in group]
    ledger = Ledger(len(loss.head.weight) + loss.padding)
    for parameter in model.parameters():
        ledger.enter(parameter, "weights")
    optimizer = make_optimizer(model, groups, config.train)
    _make_moments(optimizer, [p for group in groups[-step.state_groups :] for p in group])
    for state in optimizer.state.values():
        for tensor in state.values():
            ledger.enter(tensor, "optimizer state")
    # DDP sends gradients by way of buckets, a second copy of them
    buckets = torch.empty(causal_lm.count_parameters(trainable) if step.processes > 1 else 0)
    ledger.enter(buckets, "gradients")

    if step.passes > 1:  # from the second pass on gradients are there before
        for parameter in trainable:
            parameter.grad = torch.zeros_like(parameter)
            ledger.enter(parameter.grad, "gradients")

    def enter_gradient(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        ledger.enter(parameter.grad, "gradients")

    hooks = [
        parameter.register_post_accumulate_grad_hook(enter_gradient)  # type: ignore[no-untyped-call]
        for parameter in trainable
    ]
    flops, update_flops = _run(model, loss, optimizer, step, ledger)
    for hook in hooks:
        hook.remove()
    loss.release()
    return StepCount(
        flops / (step.micro_batch_size * step.block_size),
        update_flops,
        causal_lm.count_parameters(model.parameters()),
        causal_lm.count_parameters(trainable),
        {part: ledger.peak[part] for part in PARTS},
        ledger.most["gradients"],
        ledger.peak_moment,
    )


def count_forward(
    config: Config, shape: Any, step: Step, head_is_last: bool | None = None
) -> float:
    """FLOPs per token of measuring a validation set."""
    if head_is_last is None:
        head_is_last = is_head_last(shape)
    with FakeTensorMode(), torch.device("cpu"), torch.no_grad():
        model = make_model(shape).eval()
        loss = _prepare(model, config, step, head_is_last)
        ids_BT = torch.zeros((1, step.block_size), dtype=torch.int64)
        with Ledger(0) as ledger, _short_loop(), _device(step):
            loss(loss_input(model(ids_BT)), ids_BT)
    return float(ledger.flops / step.block_size)


def _prepare(model: PreTrainedModel, config: Config, step: Step, head_is_last: bool) -> HeadLoss:
    """As `learner.make_learner` does; blocks are computed again with the device's kernels too."""
    runtime = dataclasses.replace(config.runtime, activation_checkpointing=False, tf32=False)
    model.to = lambda *_: model  # it is there, and fake parameters refuse to be moved
    prepare_model(model, dataclasses.replace(config, runtime=runtime), World("cpu", 1))
    del model.to
    if step.activation_checkpointing:
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        for block in causal_lm.block_list(model):
            block.forward = partial(again, partial(_within, step, block.forward))
    return HeadLoss(
        model,
        chunk_rows=step.loss_rows,
        vocab_multiple=step.vocab_multiple,
        head_is_last=head_is_last,
        cached_rows=step.loss_rows if step.device == "cuda" else None,
    )


def _run(
    model: PreTrainedModel,
    loss: HeadLoss,
    optimizer: torch.optim.Optimizer,
    step: Step,
    ledger: Ledger,
) -> tuple[int, int]:
    """Runs a pass and the update; FLOPs of each."""
    shape_BT = (step.micro_batch_size, step.block_size)
    with ledger, _short_loop():
        ids_BT = torch.zeros(shape_BT, dtype=torch.int64)
        with _device(step):
            ledger.moment = "forward"
            hidden_BTD = loss_input(model(ids_BT))
            ledger.keep_work()
            ledger.moment = "loss"
            mean = loss(hidden_BTD, ids_BT)
        ledger.moment = "backward"
        mean.backward()  # type: ignore[no-untyped-call]
        flops = ledger.flops
        del mean, hidden_BTD
        ledger.moment = "update"
        optimizer.step()
        optimizer.zero_grad()
        return flops, ledger.flops - flops


@contextmanager
def _short_loop() -> Iterator[None]:
    """The loss's loop over cached rows ends after two turns; later ones take what the second does.

    On the CPU it has 256 turns for 8 x 1,024 tokens, half the operators of a step of GPT-2 small.
    """
    whole = losses._differentiate

    def two_turns(
        logits_RP: torch.Tensor,
        targets_R: torch.Tensor,
        nats_R: torch.Tensor,
        with_grad: bool,
        cached_rows: int,
    ) -> None:
        rows = slice(2 * cached_rows)
        whole(logits_RP[rows], targets_R[rows], nats_R[rows], with_grad, cached_rows)

    losses._differentiate = two_turns
    try:
        yield
    finally:
        losses._differentiate = whole


@contextmanager
def _device(step: Step) -> Iterator[None]:
    """Forward passes in the precision and with the kernels of the step's device."""
    with autocast("cpu", step.precision), Kernels(step.device):
        yield


def _within(step: Step, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function with the kernels of the device, in the backward pass too."""
    with Kernels(step.device):
        return function(*args, **kwargs)


def _make_moments(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
