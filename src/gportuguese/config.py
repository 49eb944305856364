"""One YAML file -> one frozen, typed `Config`; every problem in it reported at once."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml


class UserError(Exception):
    """Something the user can mend: shown without a traceback, exit code 2."""


class ConfigError(UserError):
    """The configuration is wrong; the message lists every problem found."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how to run: recorded with each result, but not part of its identity."""

    artifacts_dir: str = "artifacts"
    """Folder of the stage folders."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    micro_batch_size: int = 8
    """Sequences per forward pass; gradients accumulate up to `train.global_batch_size`."""
    num_workers: int = 0
    """Processes that clean pages; 0 means one per core."""


@dataclass(frozen=True, kw_only=True)
class DumpConfig:
    """Which Wikipedia dump."""

    source: str | None = None
    """Path, URL, or `package:NAME` for what the package carries; wins over `wiki` and `date`."""
    wiki: str = "ptwiki"
    """Name of the wiki on the dump host."""
    date: str = "latest"
    """`latest` or YYYYMMDD."""
    mirror: str | None = None
    """Base address of a mirror laid out as the dump host is."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which documents, and how they are split."""

    documents: str | None = None
    """Own documents instead of a dump: a .jsonl, .jsonl.gz, .parquet or .txt file, or a folder."""
    min_chars: int = 1800
    """Shorter documents (characters of clean text) are dropped."""
    max_title_chars: int = 150
    """Pages with longer titles are dropped, as in the original recipe."""
    dedup: Literal["exact", "off"] = "exact"
    """Drop documents whose text occurred before."""
    valid_per_mille: int = 10
    """Validation share, by SHA-256 of the page id."""
    test_per_mille: int = 10
    """Test share, by SHA-256 of the page id."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Byte-level BPE."""

    vocab_size: int = 50257
    """Entries, the 256 bytes and `<|endoftext|>` included."""
    min_frequency: int = 2
    """A pair seen less often is not merged."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """How documents become blocks."""

    block_size: int = 1024
    """Tokens per training sequence."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A fresh GPT-2 instead of a trained base model."""

    layers: int
    width: int
    heads: int
    positions: int
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Which base model, and how its embeddings meet the new vocabulary."""

    base: str | Architecture = "gpt2"
    """Hub id, folder, .gguf file, `package:NAME`, or an architecture to start from scratch."""
    method: Literal["mean", "random"] = "mean"
    """`mean`: copy shared rows, fill the rest with the mean; `random`: the whole model afresh."""
    seed: int = 0
    """Seed of whatever the method draws."""


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One one-cycle fit."""

    name: str
    epochs: int
    trainable_groups: int
    """How many of the four parameter groups train, counted from the embeddings (1) to all (4)."""
    lr_max: float
    """Peak learning rate of the last group."""
    lr_ratio: float = 45.6976
    """`lr_max` over the peak rate of the first group; geometric in between (recipe: 2.6^4)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The fine-tuning recipe; the defaults are the published ones."""

    seed: int = 0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Refused where the device cannot."""
    global_batch_size: int = 8
    """Sequences per optimizer step, all devices together."""
    epoch_tokens: int | None = None
    """Training tokens per epoch; null means every block once."""
    valid_tokens: int | None = None
    """Validation tokens after each epoch, spread evenly over the set; null means all."""
    weight_decay: float = 0.01
    """Decoupled; not applied to biases and norms, as fastai does."""
    momentums: tuple[float, ...] = (0.95, 0.85, 0.95)
    """First Adam moment at the start, peak and end of a cycle."""
    beta2: float = 0.99
    """Second Adam moment (fastai's sqr_mom)."""
    eps: float = 1e-5
    pct_start: float = 0.25
    """Share of a phase in which the rate rises."""
    div: float = 25.0
    """`lr_max` over the first rate."""
    div_final: float = 1e5
    """`lr_max` over the last rate."""
    grad_clip: float | None = None
    """Largest gradient norm; null means no clipping, as in the recipe."""
    tensorboard: bool = True
    """Write TensorBoard logs beside the weights."""
    phases: tuple[PhaseConfig, ...] = (
        PhaseConfig(name="embeddings", epochs=1, trainable_groups=1, lr_max=2e-3, lr_ratio=1.0),
        PhaseConfig(name="top", epochs=1, trainable_groups=2, lr_max=1e-3),
        PhaseConfig(name="middle", epochs=1, trainable_groups=3, lr_max=5e-4),
        PhaseConfig(name="all", epochs=2, trainable_groups=4, lr_max=1e-4),
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The final report."""

    tokens: int | None = None
    """Tokens of each held-out set, spread evenly; null means all."""
    prompts: tuple[str, ...] = (
        "Quem era Jim Henson? Jim Henson era um",
        "Em um achado chocante, o cientista descobriu um",
        "Barack Hussein Obama II, nascido em 4 de agosto de 1961, é",
        "Corrida por vacina contra Covid-19 já tem",
    )
    """Prompts of the samples: those of the published model card."""
    sample_tokens: int = 50
    """New tokens per sample."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run."""

    name: str
    runtime: RuntimeConfig = RuntimeConfig()
    dump: DumpConfig = DumpConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig()
    align: AlignConfig = AlignConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its trap: `1e-3` is a number, not text."""


_Loader.yaml_implicit_resolvers = dict(yaml.SafeLoader.yaml_implicit_resolvers)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def load_config(path: str | Path | None = None, overrides: tuple[str, ...] = ()) -> Config:
    """The resolved `Config` of a YAML file (none: the packaged demo) and `section.key=value`s.

    Raises `ConfigError` listing every problem at once.
    """
    path = asset_path("demo.yaml") if path is None else Path(path)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings; see configs/ for examples")
    problems: list[str] = []
    for override in overrides:
        _apply_override(tree, override, problems)
    config = _parse(Config, tree, "", problems)
    if config is not None and not problems:
        problems += _relations(config)
    if problems:
        raise ConfigError(f"{path}:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return typing.cast(Config, config)


def asset_path(name: str) -> Path:
    """Where the package keeps a file it carries."""
    return Path(__file__).parent / "assets" / name


def resolve_path(source: str) -> Path:
    """The path meant by a config value, `package:NAME` included."""
    if source.startswith("package:"):
        return asset_path(source.removeprefix("package:"))
    return Path(source).expanduser()


def as_tree(value: Any) -> Any:
    """Plain dicts and lists of a config dataclass, for YAML, JSON and digests."""
    tree = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    if isinstance(tree, dict):
        return {key: as_tree(item) for key, item in tree.items()}
    return [as_tree(item) for item in tree] if isinstance(tree, (list, tuple)) else tree


def _apply_override(tree: dict[str, Any], override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        problems.append(f"--set {override}: write it as section.key=value")
        return
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {}) if isinstance(tree, dict) else {}
    if not isinstance(tree, dict):
        problems.append(f"--set {override}: {'.'.join(parents)} is not a section")
        return
    try:
        tree[leaf] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        problems.append(f"--set {override}: the value is not YAML")


def _parse(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """`value` as `kind`; problems are added to the list and None is returned for them."""
    if dataclasses.is_dataclass(kind):
        return _parse_section(kind, value, where, problems)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        for choice in choices:
            if dataclasses.is_dataclass(choice) == isinstance(value, dict):
                return _parse(choice, value, where, problems)
        return _parse(choices[0], value, where, problems)
    if origin is Literal:
        if value not in arguments:
            problems.append(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            problems.append(f"{where}: expected a list, got {value!r}")
            return ()
        items = [
            _parse(arguments[0], item, f"{where}[{index}]", problems)
            for index, item in enumerate(value)
        ]
        return tuple(items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        problems.append(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _parse_section(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where or 'config'}: expected a section, got {value!r}")
        return None
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(hints)}"
            problems.append(f"{name}: unknown key{hint}")
        else:
            values[key] = _parse(hints[key], item, name, problems)
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in value:
            problems.append(f"{where + '.' if where else ''}{field.name}: missing")
            values[field.name] = None
    return kind(**values)


def _relations(config: Config) -> list[str]:
    """What single fields cannot say: ranges, and relations between sections."""
    train, corpus, align, runtime = config.train, config.corpus, config.align, config.runtime
    base = align.base
    checks = [
        (runtime.micro_batch_size >= 1, "runtime.micro_batch_size: must be at least 1"),
        (runtime.num_workers >= 0, "runtime.num_workers: must be 0 (one per core) or more"),
        (corpus.min_chars >= 0, "corpus.min_chars: must not be negative"),
        (
            corpus.valid_per_mille >= 1
            and corpus.test_per_mille >= 0
            and corpus.valid_per_mille + corpus.test_per_mille < 1000,
            "corpus: valid_per_mille must be at least 1 and leave something to train on",
        ),
        (
            not (config.dump.source and corpus.documents),
            "dump.source and corpus.documents: give one of them, not both",
        ),
        (
            config.tokenizer.vocab_size >= 257,
            "tokenizer.vocab_size: at least 257 (256 bytes and <|endoftext|>)",
        ),
        (config.tokenizer.min_frequency >= 1, "tokenizer.min_frequency: must be at least 1"),
        (config.tokens.block_size >= 2, "tokens.block_size: must be at least 2"),
        (bool(train.phases), "train.phases: at least one phase"),
        (
            len(train.momentums) == 3 and all(0 <= value < 1 for value in train.momentums),
            "train.momentums: three values in [0, 1): start, peak, end",
        ),
        (train.global_batch_size >= 1, "train.global_batch_size: must be at least 1"),
        (0 < train.pct_start < 1, "train.pct_start: must lie between 0 and 1"),
        (0 <= train.beta2 < 1, "train.beta2: must lie in [0, 1)"),
        (min(train.eps, train.div, train.div_final) > 0, "train: eps, div, div_final must be > 0"),
        (train.weight_decay >= 0, "train.weight_decay: must not be negative"),
        (train.grad_clip is None or train.grad_clip > 0, "train.grad_clip: must be > 0 or null"),
        (config.evaluate.sample_tokens >= 1, "evaluate.sample_tokens: must be at least 1"),
    ]
    if runtime.micro_batch_size >= 1:
        checks.append(
            (
                train.global_batch_size % runtime.micro_batch_size == 0,
                f"train.global_batch_size={train.global_batch_size} does not divide by "
                f"runtime.micro_batch_size={runtime.micro_batch_size}",
            )
        )
    step_tokens = train.global_batch_size * config.tokens.block_size
    for name, count, least in (
        ("train.epoch_tokens", train.epoch_tokens, step_tokens),
        ("train.valid_tokens", train.valid_tokens, config.tokens.block_size),
        ("evaluate.tokens", config.evaluate.tokens, config.tokens.block_size),
    ):
        checks.append((count is None or count >= least, f"{name}={count}: at least {least}"))
    for index, phase in enumerate(train.phases):
        where = f"train.phases[{index}]"
        checks += [
            (bool(re.fullmatch(r"[\w-]+", phase.name)), f"{where}.name: letters, digits, - and _"),
            (phase.epochs >= 1, f"{where}.epochs: must be at least 1"),
            (1 <= phase.trainable_groups <= 4, f"{where}.trainable_groups: 1 to 4"),
            (phase.lr_max > 0, f"{where}.lr_max: must be > 0"),
            (phase.lr_ratio >= 1, f"{where}.lr_ratio: must be at least 1"),
        ]
    if isinstance(base, Architecture):
        checks += [
            (
                align.method == "random",
                "align.method: an architecture in align.base holds no weights; use method: random",
            ),
            (
                base.heads >= 1 and base.width % base.heads == 0,
                f"align.base: width={base.width} does not divide by heads={base.heads}",
            ),
            (base.layers >= 3, "align.base.layers: at least 3 (three groups of blocks)"),
            (0 <= base.dropout < 1, "align.base.dropout: must lie in [0, 1)"),
            (
                config.tokens.block_size <= base.positions,
                f"tokens.block_size={config.tokens.block_size} is above "
                f"align.base.positions={base.positions}",
            ),
        ]
    return [message for holds, message in checks if not holds]
