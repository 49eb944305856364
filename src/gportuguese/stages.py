"""The stages in order, with their inputs and what identifies their results. Does not import torch.

The code of a stage is the module `gportuguese.<name>`, except that `gportuguese.train` and
`gportuguese.evaluate` are functions of the Python API. The name of its folder holds a digest of its
identity.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gportuguese import artifacts, base, dump, hashes, plugins
from gportuguese.config import Config, as_tree, sources_of, uses_dump
from gportuguese.progress import busy
from gportuguese.wikitext import hash_tables
from gportuguese.world import World

log = logging.getLogger("gportuguese")

Folders = Callable[[str], Path | None]
"""Maps the name of a stage to its folder; None while the folder is unknown."""
Hashes = dict[str, str | None]
"""Content hashes of files from outside the pipeline; None for files that are not fetched yet."""


def _no_hashes(config: Config, folders: Folders) -> Hashes:
    return {}


def _digest(folder: Path) -> str | None:
    return artifacts.parts_of(folder)[1]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the pipeline."""

    name: str
    about: str
    """Help text of its command."""
    module: str = ""
    """The module in this package that defines its `build`; empty if it has the stage's name."""
    settings: Callable[[Config], dict[str, Any]]
    """The settings that affect its result."""
    inputs: tuple[str, ...] = ()
    """Names of the stages it reads."""
    outside: Callable[[Config, Folders], Hashes] = _no_hashes
    """Its inputs from outside the pipeline."""
    result: Callable[[Path], str | None] = _digest
    """The identity of the result in downstream digests."""
    version: int = 1
    """Bump it if a code change alters the result for the same config and inputs."""
    resumable: bool = False
    """Whether it can resume after an interrupted run."""
    takes_callbacks: bool = False
    """Whether its `build` accepts fastai callbacks and metrics."""
    is_shared: bool = False
    """Whether all processes of torchrun build it together. The main process builds other stages."""
    fetch: Callable[[Config], object] | None = None
    """Downloads the files that `outside` hashes."""
    check: Callable[[World, Config], None] | None = None
    """Raises `UserError` if this machine cannot run the stage, before earlier stages take hours."""
    is_used: Callable[[Config], bool] = lambda config: True

    def used_inputs(self, config: Config) -> tuple[str, ...]:
        """The names of the stages it reads with this config."""
        return tuple(name for name in self.inputs if STAGES[name].is_used(config))

    def identity(self, config: Config, folders: Folders) -> dict[str, Any] | None:
        """Everything its result depends on; None if an input has not been fetched."""
        inputs = self.outside(config, folders)
        for name in self.used_inputs(config):
            folder = folders(name)
            inputs[name] = None if folder is None else STAGES[name].result(folder)
        if None in inputs.values():
            return None
        section = self.settings(config)
        return {"stage": self.name, "version": self.version, "section": section, "inputs": inputs}


def _section(*keys: str) -> Callable[[Config], dict[str, Any]]:
    """Returns a function that picks a section of the config, and single settings by full key."""

    def settings(config: Config) -> dict[str, Any]:
        tree = as_tree(config)
        section = dict(tree[keys[0]])
        for key in keys[1:]:
            section[key] = functools.reduce(dict.__getitem__, key.split("."), tree)
        return section

    return settings


def _dump_settings(config: Config) -> dict[str, Any]:
    if not dump.is_remote(config.dump):
        return {}  # a local file is identified by its content
    # every mirror has the same files; the default keeps the digests of earlier downloads
    return {**_section("dump")(config), "mirror": None}


def _dump_file(config: Config, folders: Folders) -> Hashes:
    if dump.is_remote(config.dump):
        return {}
    return {"content": hashes.remembered_hash(dump.local_path(config.dump))}


def _dump_content(folder: Path) -> str | None:
    return str(artifacts.read_manifest(folder).facts["sha256"]) if folder.is_dir() else None


def _corpus_settings(config: Config) -> dict[str, Any]:
    section = _section("corpus")(config)
    del section["exclude"]  # identified by content instead
    if not section.pop("sources"):  # the digests from before there were sources
        return section if config.corpus.documents is None else {**section, "documents": "own"}
    # documents are identified by their content, and a weight changes no document
    settings = [dict(as_tree(source)) for source in sources_of(config.corpus)]
    for each in settings:
        del each["documents"], each["revision"], each["weight"]
    return {**section, "sources": settings}


def _mix_settings(config: Config) -> dict[str, Any]:
    """The weights by source, and the seed of the draw; empty unless sources have weights."""
    weights = {str(source.name): source.weight for source in sources_of(config.corpus)}
    if len(weights) == 1 or not any(weights.values()):
        return {}
    return {"weights": weights, "seed": config.tokens.seed}


def _corpus_files(config: Config, folders: Folders) -> Hashes:
    excluded: Hashes = {}
    if config.corpus.exclude:
        from gportuguese import corpus  # only now: it loads numpy

        excluded = {"excluded": corpus.hash_excluded(config.corpus)}
    return {**_documents_and_tables(config, folders), **excluded}


def _documents_and_tables(config: Config, folders: Folders) -> Hashes:
    hashes: Hashes = {}
    if config.corpus.sources or config.corpus.documents is not None:
        from gportuguese import corpus  # only now: it loads numpy

        name = "sources" if config.corpus.sources else "documents"
        hashes[name] = corpus.identify_sources(config.corpus, download=False)
    if uses_dump(config.corpus):
        folder = folders("dump")
        hashes["tables"] = None
        if folder is not None and folder.is_dir():
            hashes["tables"] = hash_tables(str(artifacts.read_manifest(folder).facts["language"]))
    return hashes


def _find_commits(config: Config) -> object:
    from gportuguese import corpus

    return corpus.identify_sources(config.corpus, download=True)


def _tokenizer_settings(config: Config) -> dict[str, Any]:
    section = _section("tokenizer")(config)
    if section["method"] == "retrain":
        del section["method"]  # keeps the digests of runs from before there was a choice
    return section


def _base_tokenizer(config: Config, folders: Folders) -> Hashes:
    if config.tokenizer.method == "retrain":
        return {}
    return {"base": base.identity_of(config.align.base, download=False, with_weights=False)}


def _fetch_base_tokenizer(config: Config) -> None:
    """Also checks that it can be extended, before earlier stages take hours."""
    if config.tokenizer.method == "extend":
        from gportuguese import tokenizer  # only now: it loads numpy

        tokenizer.load_extendable(config)


def _align_settings(config: Config) -> dict[str, Any]:
    from gportuguese.align_files import FILES  # only now: it loads numpy

    section = _section("align", "tokens.block_size")(config)
    for key in FILES:  # identified by their content instead
        del section[key]
    for key, before in (("tie", "keep"), ("distill_tokens", 0), ("head_tokens", 0)):
        if section[key] == before:  # runs from before these settings keep their digests
            del section[key]
    return {**section, "base": "given"} if isinstance(config.align.base, str) else section


def _base_and_resources(config: Config, folders: Folders) -> Hashes:
    from gportuguese.align_files import hash_resources

    return {
        "base": base.identity_of(config.align.base, download=False),
        "resources": hash_resources(config.align),
    }


def _train_settings(config: Config) -> dict[str, Any]:
    section = _section("train", "tokens.block_size")(config)
    del section["tracker"]  # it only logs
    for phase in section["phases"]:
        if phase["trainable"] == "groups":
            del phase["trainable"]  # keeps the digests of runs from before there was a choice
    named = plugins.digest_settings(section.pop("callbacks"))
    # runs from before `tracker` hashed `tensorboard`, and those from before `boundaries` hashed nothing;
    # the defaults keep their digests
    boundaries = config.tokens.boundaries
    packed = {} if boundaries == "none" else {"tokens.boundaries": boundaries}
    return {**section, "tensorboard": True, **named, **packed}


def _dump_receipt(config: Config, folders: Folders) -> Hashes:
    """The dump's folder: the card prints its facts, which differ between a download and a local file."""
    if not STAGES["dump"].is_used(config):
        return {}
    folder = folders("dump")
    return {"receipt": None if folder is None else folder.name}


def _check_alignment(world: World, config: Config) -> None:
    from gportuguese.align_files import check_packages

    check_packages(config.align)


def _fetch_base(config: Config) -> None:
    """Also rejects too long blocks and a tied head that is to be fitted, before earlier stages take hours."""
    base.identity_of(config.align.base, download=True)
    if isinstance(config.align.base, str):
        with busy("reading the base's config"):
            from gportuguese.plan import read_shape

            read_shape(config)


def _check_formats(world: World, config: Config) -> None:
    from gportuguese.export_formats import check_formats

    check_formats(config)


def _check_training(world: World, config: Config) -> None:
    plugins.check_plugins(config.train, world.is_main)
    world.passes_of_step(config.train.global_batch_size, config.runtime.micro_batch_size)
    with busy("loading PyTorch"):
        from gportuguese.precision import check_machine

        check_machine(world.device, config)
    log.info("training on %s", world.device)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            name="dump",
            about="fetch or verify the Wikipedia dump",
            settings=_dump_settings,
            outside=_dump_file,
            result=_dump_content,
            resumable=True,
            is_used=lambda config: uses_dump(config.corpus),
        ),
        Stage(
            name="corpus",
            about="clean documents and split them",
            inputs=("dump",),
            settings=_corpus_settings,
            outside=_corpus_files,
            version=7,
            resumable=True,
            fetch=_find_commits,
        ),
        Stage(
            name="tokenizer",
            about="train or extend the byte-level BPE tokenizer",
            inputs=("corpus",),
            settings=_tokenizer_settings,
            outside=_base_tokenizer,
            version=2,
            fetch=_fetch_base_tokenizer,
        ),
        Stage(
            name="tokens",
            about="tokenize the documents into memory-mapped files",
            inputs=("corpus", "tokenizer"),
            settings=_mix_settings,  # blocks are cut when the files are read
            version=2,
        ),
        Stage(
            name="align",
            about="initialize embeddings for the new vocabulary",
            inputs=("tokenizer", "tokens"),
            settings=_align_settings,
            outside=_base_and_resources,
            version=5,
            resumable=True,
            fetch=_fetch_base,
            check=_check_alignment,
        ),
        Stage(
            name="train",
            about="train the model, running missing earlier stages first",
            module="training",
            inputs=("corpus", "align", "tokens"),
            settings=_train_settings,
            version=3,
            resumable=True,
            is_shared=True,
            takes_callbacks=True,
            check=_check_training,
        ),
        Stage(
            name="evaluate",
            about="measure the trained model and write the report",
            module="evaluation",
            inputs=("corpus", "align", "train", "tokens"),
            settings=_section("evaluate"),
            version=5,
        ),
        Stage(
            name="export",
            about="write the folder that users load, with model card and other formats",
            inputs=("dump", "corpus", "tokens", "align", "train", "evaluate"),
            settings=_section("export", "name", "align.base"),  # the card prints the last two
            outside=_dump_receipt,
            version=6,
            check=_check_formats,
        ),
    )
}
