"""FLOPs and memory of one training step, counted by running it on fake tensors.

Fake tensors are meta tensors that know a device: they hold no data, and autocast, dropout and
attention go the CPU's way, which on plain meta tensors they do not (there autocast does nothing).
Where CUDA goes another way, `Kernels` goes it, on machines without a GPU too. So what is counted
is the program's own step, not a formula for it.

Shapes: B sequences, T tokens, V vocabulary (padded), R rows of a chunk of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from gportuguese import metrics
from gportuguese import model as models
from gportuguese.callbacks.precision import autocast
from gportuguese.config import TrainConfig
from gportuguese.learner import make_optimizer
from gportuguese.plan.kernels import Kernels
from gportuguese.plan.ledger import PARTS, Ledger
from gportuguese.plan.shape import make_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


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
    vocab_multiple: int = 1
    activation_checkpointing: bool = False
    loss_chunk: int = 0
    """Rows of logits at a time; 0: all."""
    processes: int = 1


@dataclass(frozen=True)
class StepCount:
    """What a step takes, per token and at its peak."""

    forward_flops: float
    """Per token, of a forward pass without recomputation."""
    train_flops: float
    """Per token, forward and backward."""
    parameters: int
    trainable_parameters: int
    memory: dict[str, int]
    """Bytes by part (`ledger.PARTS`) at the moment of the peak; they add up to it."""
    gradient_bytes: int
    """The most that gradients take, which may be at another moment."""
    moment: str
    """`forward`, `backward` or `update`."""

    @property
    def peak_bytes(self) -> int:
        """The most that tensors take at any moment."""
        return sum(self.memory.values())


def count_step(shape: Any, section: TrainConfig, step: Step) -> StepCount:
    """Runs one step of the model on fake tensors and counts."""
    with FakeTensorMode(), torch.device("cpu"):
        model = make_model(shape).train()
        return count_model_step(model, section, step)


def count_model_step(model: PreTrainedModel, section: TrainConfig, step: Step) -> StepCount:
    """Counts one step of a model that is there, real or fake; its gradients are cleared.

    The optimizer's moments exist before, as in every step but the first.
    """
    models.pad_logits(model, step.vocab_multiple)
    if step.activation_checkpointing:
        for block in models.block_list(model):
            block.forward = partial(_again, partial(_within, step, block.forward))
    groups = models.parameter_groups(model)
    for index, group in enumerate(groups):
        for parameter in group:
            parameter.requires_grad_(index >= len(groups) - step.trainable_groups)
    trainable = [p for group in groups[-step.trainable_groups :] for p in group]
    num_logits = len(model.get_output_embeddings().weight)
    ledger = Ledger(num_logits + -num_logits % step.vocab_multiple)
    for parameter in model.parameters():
        ledger.enter(parameter, "weights")
    optimizer = make_optimizer(model, section)
    _make_moments(optimizer, [p for group in groups[-step.state_groups :] for p in group])
    for state in optimizer.state.values():
        for tensor in state.values():
            ledger.enter(tensor, "optimizer state")
    # DDP sends gradients by way of buckets, a second copy of them
    buckets = torch.empty(models.count_parameters(trainable) if step.processes > 1 else 0)
    ledger.enter(buckets, "gradients")

    def enter_gradient(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        ledger.enter(parameter.grad, "gradients")

    hooks = [
        p.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda p: ledger.enter(p.grad, "gradients")
        )
        for p in trainable
    ]
    forward, train = _run(model, optimizer, step, ledger)
    for hook in hooks:
        hook.remove()
    tokens = step.micro_batch_size * step.block_size
    return StepCount(
        forward / tokens,
        train / tokens,
        models.count_parameters(model.parameters()),
        models.count_parameters(trainable),
        {part: ledger.peak[part] for part in PARTS},
        ledger.most["gradients"],
        ledger.peak_moment,
    )


def _run(
    model: PreTrainedModel, optimizer: torch.optim.AdamW, step: Step, ledger: Ledger
) -> tuple[int, int]:
    """Runs the step; FLOPs of its last pass, forward and in all."""
    shape_BT = (step.micro_batch_size, step.block_size)
    with ledger:
        for _ in range(min(step.passes, 2)):  # from the second on gradients are there before
            before = ledger.flops
            ids_BT = torch.zeros(shape_BT, dtype=torch.int64)
            ledger.moment = "forward"
            logits_BTV, loss = _forward(model, ids_BT, step)
            ledger.keep_work()
            forward = ledger.flops - before
            ledger.moment = "backward"
            loss.backward()  # type: ignore[no-untyped-call]
            train = ledger.flops - before
            del loss, logits_BTV
        ledger.moment = "update"
        optimizer.step()
        optimizer.zero_grad()
    return forward, train


def _within(step: Step, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function with the kernels of the device, in the backward pass too."""
    with Kernels(step.device, step.precision):
        return function(*args, **kwargs)


def _make_moments(optimizer: torch.optim.AdamW, parameters: list[torch.nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _forward(
    model: PreTrainedModel, ids_BT: torch.Tensor, step: Step
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Logits, which the run holds on to, and the loss; in chunks of rows there are no logits."""
    with autocast("cpu", step.precision), Kernels(step.device, step.precision):
        if not step.loss_chunk:
            logits_BTV = model(ids_BT).logits
            return logits_BTV, metrics.TokenLoss()(logits_BTV, ids_BT)
        hidden_RD = model.base_model(ids_BT).last_hidden_state.flatten(0, 1)
        rows, ids = hidden_RD.split(step.loss_chunk), ids_BT.flatten().split(step.loss_chunk)  # type: ignore[no-untyped-call]
        head = model.get_output_embeddings()

        def nats(rows_RD: torch.Tensor, ids_R: torch.Tensor) -> torch.Tensor:
            return metrics.token_nats(head(rows_RD)[None], ids_R[None])[0]

        chunks = [_again(nats, *chunk) for chunk in zip(rows, ids, strict=True)]
        return None, torch.cat(chunks).mean()
