"""The stages in order, with their inputs and what identifies their results. Does not import torch.

The code of a stage is the module `gportuguese.<name>`, except that `gportuguese.train` and
`gportuguese.evaluate` are functions of the Python API. The name of its folder holds a digest of its
identity.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gportuguese import artifacts, base, identity, plugins
from gportuguese.config import Config, uses_dump
from gportuguese.identity import Folders, Hashes
from gportuguese.progress import busy
from gportuguese.world import World

log = logging.getLogger("gportuguese")


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


def _find_sources(config: Config) -> None:
    """Also checks the sources beside the dump, before hours go into its download."""
    from gportuguese import corpus

    corpus.identify_sources(config.corpus, download=True)
    if uses_dump(config.corpus):
        corpus.check_sources(config.corpus)
        corpus.check_excluded(config.corpus)


def _fetch_base_tokenizer(config: Config) -> None:
    """Also checks that it can be extended, before earlier stages take hours."""
    if config.tokenizer.method == "extend":
        from gportuguese import tokenizer  # only now: it loads numpy

        tokenizer.load_extendable(config)


def _check_alignment(world: World, config: Config) -> None:
    from gportuguese.align_files import check_packages

    check_packages(config.align)


def _fetch_base(config: Config) -> None:
    """Also rejects what alignment would, before earlier stages take hours.

    That is a base without a byte-level tokenizer, too long blocks, and a tied head that is to be fitted.
    """
    base.identity_of(config.align.base, download=True)
    if isinstance(config.align.base, str):
        with busy("reading the base's config and tokenizer"):
            from gportuguese.plan import read_shape
            from gportuguese.tokenizer import load_base

            read_shape(config)
            load_base(config.align.base)


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
            settings=identity.dump_settings,
            outside=identity.dump_file,
            result=identity.dump_content,
            resumable=True,
            is_used=lambda config: uses_dump(config.corpus),
        ),
        Stage(
            name="corpus",
            about="clean documents and split them",
            inputs=("dump",),
            settings=identity.corpus_settings,
            outside=identity.corpus_files,
            version=7,
            resumable=True,
            fetch=_find_sources,
        ),
        Stage(
            name="tokenizer",
            about="train or extend the byte-level BPE tokenizer",
            inputs=("corpus",),
            settings=identity.tokenizer_settings,
            outside=identity.base_tokenizer,
            version=2,
            fetch=_fetch_base_tokenizer,
        ),
        Stage(
            name="tokens",
            about="tokenize the documents into memory-mapped files",
            inputs=("corpus", "tokenizer"),
            settings=identity.mix_settings,  # blocks are cut when the files are read
            version=2,
        ),
        Stage(
            name="align",
            about="initialize embeddings for the new vocabulary",
            inputs=("tokenizer", "tokens"),
            settings=identity.align_settings,
            outside=identity.base_and_resources,
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
            settings=identity.train_settings,
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
            settings=identity.section_of("evaluate"),
            version=5,
        ),
        Stage(
            name="export",
            about="write the folder that users load, with model card and other formats",
            inputs=("dump", "corpus", "tokens", "align", "train", "evaluate"),
            settings=identity.section_of("export", "name", "align.base"),  # which the card prints
            outside=identity.dump_receipt,
            version=6,
            check=_check_formats,
        ),
    )
}
