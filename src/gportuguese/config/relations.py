"""Checks that involve several fields of a config. The schema holds the bounds of single fields."""

from __future__ import annotations

from collections.abc import Iterator

from gportuguese.config.methods import METHODS
from gportuguese.config.schema import (
    AlignConfig,
    Architecture,
    Config,
    CorpusConfig,
    DumpConfig,
    SourceConfig,
)
from gportuguese.config.sources import DUMP, is_hub_id, sources_of, uses_dump


def broken_relations(config: Config) -> list[str]:
    """One error message for each check that fails."""
    checks = [*_corpus(config), *_sources(config.corpus), *_tokenizer(config)]
    checks += [*_align(config.align), *_train(config)]
    if isinstance(config.align.base, Architecture):
        checks += _architecture(config, config.align.base)
    return [message for holds, message in checks if not holds]


_Checks = Iterator[tuple[bool, str]]


def _corpus(config: Config) -> _Checks:
    corpus = config.corpus
    yield (
        corpus.valid_per_mille + corpus.test_per_mille < 1000,
        "corpus: valid_per_mille and test_per_mille leave no training documents; lower them",
    )
    yield (
        not (config.dump.source and corpus.documents),
        "dump.source and corpus.documents: set only one of them (--set dump.source=null)",
    )
    yield (
        not (config.dump.source and corpus.sources) or uses_dump(corpus),
        "dump.source: none of corpus.sources reads it; add {documents: dump} to them, or add "
        "--set dump.source=null",
    )
    wiki = config.dump.wiki
    yield (
        config.dump.source is None or wiki == DumpConfig.wiki,
        f"dump.wiki={wiki}: has no effect, because dump.source={config.dump.source} is read instead; "
        "add --set dump.source=null, or choose another config",
    )


def _sources(corpus: CorpusConfig) -> _Checks:
    sources = sources_of(corpus) if corpus.sources else ()
    yield (
        not (sources and corpus.documents),
        "corpus.documents and corpus.sources: set only one of them",
    )
    names = [source.name for source in sources]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield False, f"corpus.sources: two sources are named {name!r}; give each a name of its own"
    weights = [source.weight for source in sources if source.weight is not None]
    yield (
        len(weights) in (0, len(sources)),
        "corpus.sources: give every source a weight, or none",
    )
    yield (
        len(weights) != len(sources) or not weights or abs(sum(weights) - 1) <= 1e-6,
        f"corpus.sources: the weights add up to {sum(weights):.6g}, not to 1",
    )
    yield (
        not sources or sources[0].weight != 0,
        "corpus.sources: the first source is the text to learn, so its weight must be above 0",
    )
    for number, source in enumerate(sources):
        of_hub = source.subset or source.revision or source.split != SourceConfig.split
        yield (
            is_hub_id(source.documents) or not of_hub,
            f"corpus.sources[{number}]: subset, split and revision are for Hub data sets, which "
            f"{source.documents!r} is not",
        )
        for name in ("text", "id", "title"):
            yield (
                source.documents != DUMP or getattr(source, name) == getattr(SourceConfig, name),
                f"corpus.sources[{number}].{name}: the dump has no columns; remove this setting",
            )


def _align(align: AlignConfig) -> _Checks:
    needs = METHODS[align.method].needs if align.method in METHODS else ()
    yield (
        all(getattr(align, name) is not None for name in needs),
        f"align.method: {align.method} needs {' and '.join(f'align.{name}' for name in needs)}",
    )
    yield (
        (align.source_vectors is None) == (align.target_vectors is None),
        "align: set both source_vectors and target_vectors, or neither",
    )
    yield (
        align.method != "random" or not (align.distill_tokens or align.head_tokens),
        "align: distill_tokens and head_tokens learn from the base's weights, which method: random "
        "replaces",
    )


def _tokenizer(config: Config) -> _Checks:
    yield (
        config.tokenizer.method == "retrain" or config.align.method != "random",
        "tokenizer.method: extend keeps the rows of a trained base, and align.method: random has none; "
        "choose another align.method, or retrain",
    )
    yield (
        config.tokenizer.method == "retrain" or not config.align.head_tokens,
        "align.head_tokens: changes all rows of the output head, but tokenizer.method: extend keeps those "
        "of old tokens; set it to 0, or retrain",
    )


def _train(config: Config) -> _Checks:
    train, micro_batch = config.train, config.runtime.micro_batch_size
    yield bool(train.phases), "train.phases: needs at least one phase"
    yield len(train.momentums) == 3, "train.momentums: needs three values: start, peak, end"
    yield (
        train.global_batch_size % micro_batch == 0,
        f"train.global_batch_size={train.global_batch_size} is not a multiple of "
        f"runtime.micro_batch_size={micro_batch}",
    )
    for phase in train.phases:
        yield (
            phase.trainable == "groups" or phase.trainable_groups == 1,
            f"train.phases: {phase.name}: trainable: new_rows trains rows of the embeddings only; "
            "set trainable_groups: 1",
        )
    block = config.tokens.block_size
    for name, count, least in (
        ("train.epoch_tokens", train.epoch_tokens, train.global_batch_size * block),
        ("train.valid_tokens", train.valid_tokens, block),
        ("evaluate.tokens", config.evaluate.tokens, block),
    ):
        yield count is None or count >= least, f"{name}={count}: must be at least {least}"


def _architecture(config: Config, base: Architecture) -> _Checks:
    yield (
        config.align.method == "random",
        "align.method: an architecture in align.base has no weights; use method: random",
    )
    yield (
        base.width % base.heads == 0,
        f"align.base: width={base.width} is not a multiple of heads={base.heads}",
    )
    yield (
        config.tokens.block_size <= base.positions,
        f"tokens.block_size={config.tokens.block_size} is above align.base.positions={base.positions}",
    )
