"""One optimizer step as the plan sees it."""

from __future__ import annotations

from dataclasses import dataclass

from gportuguese.config import Config
from gportuguese.plan.schedule import PlanError


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


def steps_of(config: Config, device: str, processes: int = 1) -> tuple[Step, ...]:
    """The step of each phase on one of `processes` devices of a kind.

    Raises `PlanError` if the sequences of a step do not divide among them.
    """
    section, runtime = config.train, config.runtime
    at_once = runtime.micro_batch_size * processes
    if processes < 1 or section.global_batch_size % at_once:
        raise PlanError(
            f"--processes {processes}: train.global_batch_size={section.global_batch_size} does not "
            f"divide by {processes} x runtime.micro_batch_size={runtime.micro_batch_size}"
        )
    groups = [phase.trainable_groups for phase in section.phases]
    return tuple(
        Step(
            device=device,
            precision=section.precision,
            block_size=config.tokens.block_size,
            micro_batch_size=runtime.micro_batch_size,
            passes=section.global_batch_size // at_once,
            trainable_groups=trainable,
            state_groups=max(groups[: number + 1]),
            vocab_multiple=runtime.vocab_multiple,
            processes=processes,
            loss_rows=runtime.loss_rows,
            activation_checkpointing=runtime.activation_checkpointing,
        )
        for number, trainable in enumerate(groups)
    )
