"""The tokens and optimizer steps of a run, and the settings of one step."""

from __future__ import annotations

from dataclasses import dataclass

from gportuguese.artifacts import Artifact
from gportuguese.config import DUMP, Config, UserError, sources_of

# the notebook of GPorTuguese-2 (July 2020): 1.28 GB of training text, 4.9 bytes per token in an article
_PTWIKI_2020_TOKENS = 261_000_000

# of the packaged dump, cleaned and tokenized as in the demo
_PACKAGED_TOKENS = {"package:demo-ptwiki.xml.bz2": 106_621}

_EPOCH_TOKENS = "train.epoch_tokens"


class PlanError(UserError):
    """The config or the arguments do not say enough for a plan, or contradict each other."""


@dataclass(frozen=True)
class PhaseSteps:
    """One phase of training."""

    name: str
    trainable_groups: int
    new_rows_only: bool
    epochs: int
    tokens: int
    """All epochs of the phase together."""
    steps: int
    """Optimizer steps."""


@dataclass(frozen=True)
class Schedule:
    """The work of a run."""

    source: str
    """Where the number of tokens comes from."""
    epoch_tokens: int
    phases: tuple[PhaseSteps, ...]
    valid_tokens: int
    """Tokens of one validation."""
    validations: int
    """One before training and one after each epoch."""

    @property
    def tokens(self) -> int:
        """Training tokens of all phases."""
        return sum(phase.tokens for phase in self.phases)

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def make_schedule(config: Config, tokens: Artifact | None, assumed_tokens: int | None) -> Schedule:
    """The schedule of a config. `assumed_tokens` replaces the number of training tokens of the corpus.

    Raises `PlanError` if the amount of text is unknown or does not fill a step.
    """
    section, block_size = config.train, config.tokens.block_size
    corpus_tokens, source = _corpus_tokens(config, tokens, assumed_tokens)
    if section.epoch_tokens is not None:
        wanted = section.epoch_tokens
        if source != _EPOCH_TOKENS:
            source = f"{_EPOCH_TOKENS}, of {corpus_tokens:,} {source}"
    else:
        wanted = corpus_tokens - 1  # the last token is only a target
    epoch_steps = wanted // block_size // section.global_batch_size
    if epoch_steps < 1:
        raise PlanError(
            f"{wanted:,} tokens an epoch ({source}) do not fill one optimizer step of "
            f"{section.global_batch_size} x {block_size} tokens; add text or lower "
            "train.global_batch_size"
        )
    step_tokens = section.global_batch_size * block_size
    return Schedule(
        source=source,
        epoch_tokens=epoch_steps * step_tokens,
        phases=tuple(
            PhaseSteps(
                phase.name,
                phase.trainable_groups,
                phase.trainable == "new_rows",
                phase.epochs,
                phase.epochs * epoch_steps * step_tokens,
                phase.epochs * epoch_steps,
            )
            for phase in section.phases
        ),
        valid_tokens=_valid_tokens(config, tokens, corpus_tokens, source == _EPOCH_TOKENS)
        // block_size
        * block_size,
        validations=1 + sum(phase.epochs for phase in section.phases),
    )


def _corpus_tokens(
    config: Config, tokens: Artifact | None, assumed_tokens: int | None
) -> tuple[int, str]:
    if assumed_tokens is not None:
        if assumed_tokens < 1:
            raise PlanError(f"--tokens {assumed_tokens}: must be at least 1")
        return assumed_tokens, "assumed by --tokens"
    if tokens is not None:
        return int(tokens.facts["tokens"]["train"]), f"counted in {tokens.folder}"
    if config.train.epoch_tokens is not None:
        return config.train.epoch_tokens, _EPOCH_TOKENS
    target, *others = sources_of(config.corpus)
    is_known = target.documents == DUMP and target.bytes is None
    is_known &= not others or target.weight is not None  # else they are read whole
    share = target.weight or 1.0  # a pass reads the first source once
    if is_known and config.dump.source in _PACKAGED_TOKENS:
        number = int(_PACKAGED_TOKENS[config.dump.source] / share)
        return number, "the packaged articles with the demo's tokenizer; the corpus is not built"
    is_remote_ptwiki = config.dump.source is None and config.dump.wiki == "ptwiki"
    if is_remote_ptwiki and is_known:
        return int(_PTWIKI_2020_TOKENS / share), (
            "the corpus is not built; estimated from the Portuguese Wikipedia of July 2020, 1.28 GB of "
            "training text at 4.9 bytes per token (GPorTuguese-2). It has grown since; set another "
            "number with --tokens N"
        )
    raise PlanError(
        f"{config.name}: the corpus is not built, so the number of training tokens is unknown; "
        "add --tokens N, set train.epoch_tokens, or run gpt-pt tokens with the same --config and --set"
    )


def _valid_tokens(
    config: Config, tokens: Artifact | None, corpus_tokens: int, is_guess: bool
) -> int:
    """The number counted, or the validation set's share of the corpus."""
    shares = config.corpus
    if tokens is None:
        train = 1000 - shares.valid_per_mille - shares.test_per_mille
        share = sources_of(shares)[0].weight or 1.0  # the set is of the first source
        found = int(corpus_tokens * share) * shares.valid_per_mille // train
    else:
        found = int(tokens.facts["tokens"]["valid"]) - 1
    wanted = config.train.valid_tokens
    if wanted is None:
        return found
    # epoch_tokens says nothing about the size of an unbuilt corpus: assume that it is large enough
    return wanted if is_guess else min(wanted, found)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The settings that determine FLOPs and memory of one optimizer step of one process."""

    device: str
    """`cpu` or `cuda`."""
    precision: str
    block_size: int
    micro_batch_size: int
    passes: int
    """Forward passes per optimizer step."""
    trainable_groups: int
    vocab_multiple: int
    loss_rows: int
    activation_checkpointing: bool
    processes: int = 1
    new_rows: int | None = None
    """With `trainable: new_rows`, how many rows of the embeddings train, and nothing else."""


def steps_of(
    config: Config, device: str, processes: int = 1, new_rows: int | None = None
) -> tuple[Step, ...]:
    """The step of each phase, as one of `processes` processes runs it.

    If the number of new rows is None, all rows count as new. Raises `PlanError` if the sequences of a step cannot be shared equally.
    """
    section, runtime = config.train, config.runtime
    at_once = runtime.micro_batch_size * processes
    if processes < 1 or section.global_batch_size % at_once:
        raise PlanError(
            f"--processes {processes}: train.global_batch_size={section.global_batch_size} does not "
            f"divide by {processes} x runtime.micro_batch_size={runtime.micro_batch_size}"
        )
    return tuple(
        Step(
            device=device,
            precision=section.precision,
            block_size=config.tokens.block_size,
            micro_batch_size=runtime.micro_batch_size,
            passes=section.global_batch_size // at_once,
            trainable_groups=phase.trainable_groups,
            vocab_multiple=runtime.vocab_multiple,
            processes=processes,
            loss_rows=runtime.loss_rows,
            activation_checkpointing=runtime.activation_checkpointing,
            new_rows=(new_rows or config.tokenizer.vocab_size)
            if phase.trainable == "new_rows"
            else None,
        )
        for phase in section.phases
    )
