"""The stages in order, what identifies each, and building those that are missing."""

from __future__ import annotations

import hashlib
import importlib
import logging
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gportuguese import artifacts, dump
from gportuguese.artifacts import Artifact, ArtifactError
from gportuguese.config import Config, as_tree
from gportuguese.wikitext import hash_tables
from gportuguese.world import World

log = logging.getLogger("gportuguese")


@dataclass(frozen=True)
class Stage:
    """A step of the work; its module `gportuguese.<name>` has `build`."""

    name: str
    inputs: tuple[str, ...] = ()
    version: int = 1
    """Raised when the same config and inputs would give another result."""
    resumable: bool = False
    """Goes on from what an interrupted run left, instead of starting again."""
    also: tuple[str, ...] = field(default=())
    """Settings of other sections that change the result."""
    is_shared: bool = False
    """All processes that torchrun started build it together; any other is the main one's."""


STAGES = (
    Stage("dump", resumable=True),
    Stage("corpus", ("dump",), version=6, resumable=True),
    Stage("tokenizer", ("corpus",), version=2),
    Stage("tokens", ("corpus", "tokenizer"), version=2),
    Stage("align", ("tokenizer", "tokens"), version=4, also=("tokens.block_size",)),
    Stage(
        "train",
        ("corpus", "align", "tokens"),
        version=3,
        resumable=True,
        also=("tokens.block_size",),
        is_shared=True,
    ),
    Stage("evaluate", ("corpus", "train", "tokens"), version=2),
    Stage("export", ("dump", "corpus", "tokens", "align", "train", "evaluate"), version=3),
)


@dataclass(frozen=True)
class StageStatus:
    """Where a stage stands."""

    name: str
    state: str
    """`done`, `partial` or `missing`."""
    folder: Path | None
    """None while what it depends on is not known yet."""


class Pipeline:
    """One config's chain of stage folders."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._root = Path(config.runtime.artifacts_dir)
        self._identities: dict[str, str | None] = {}
        self._opened: dict[str, Artifact] = {}

    def stages(self) -> list[Stage]:
        """The stages this config uses, in order."""
        own_documents = self.config.corpus.documents is not None
        return [stage for stage in STAGES if not (own_documents and stage.name == "dump")]

    def folder(self, name: str) -> Path | None:
        """Where a stage is or will be; None while an input of it has not been fetched."""
        stage = next(stage for stage in STAGES if stage.name == name)
        inputs = {each: self._identity(each) for each in self._inputs(stage)}
        if name == "dump" and not dump.is_remote(self.config.dump):
            inputs["content"] = self._content("dump")
        if name == "align":
            inputs["base"] = self._content("base")
            inputs["resources"] = self._content("resources")
        if name == "corpus" and self.config.corpus.documents is not None:
            inputs["documents"] = self._content("documents")
        elif name == "corpus" and inputs["dump"] is not None:
            inputs["tables"] = hash_tables(str(self.open("dump").facts["language"]))
        if None in inputs.values():
            return None
        payload = {
            "stage": name,
            "version": stage.version,
            "section": self._section(stage),
            "inputs": inputs,
        }
        return self._root / f"{name}-{artifacts.digest_of(payload)}"

    def status(self) -> list[StageStatus]:
        """Every stage with its state, without building or fetching anything."""
        states = []
        for stage in self.stages():
            folder = self.folder(stage.name)
            state = "missing"
            if folder is not None and folder.is_dir():
                state = "done"
            elif folder is not None and artifacts.partial_of(folder).is_dir():
                state = "partial"
            states.append(StageStatus(stage.name, state, folder))
        return states

    def open(self, name: str) -> Artifact:
        """A built stage, checked file by file; raises `ArtifactError` if it is not there."""
        if name not in self._opened:
            folder = self.folder(name)
            if folder is None or not folder.is_dir():
                raise ArtifactError(f"no {name} at {folder or self._root}; run: gpt-pt {name}")
            self._opened[name] = artifacts.open_artifact(folder)
        return self._opened[name]

    def find(self, name: str) -> Artifact | None:
        """A built stage, checked as `open` does; None where it is not there."""
        folder = self.folder(name)
        return self.open(name) if folder is not None and folder.is_dir() else None

    def build(self, name: str, world: World) -> Artifact:
        """Builds a stage and every missing one before it; nothing that is there is built again."""
        names = [stage.name for stage in self.stages()]
        wanted = self._needed(name)
        trained = self.folder("train") if "train" in wanted else None
        if "train" in wanted and not (trained is not None and trained.is_dir()):
            # what a device cannot do is said before hours of other work
            from gportuguese.callbacks.precision import check_precision

            log.info("training on %s", world.device)
            check_precision(world.device, self.config.train)
        for stage in self.stages()[: names.index(name) + 1]:
            if stage.name in wanted:
                self._build_stage(stage, world)
        return self.open(name)

    def _build_stage(self, stage: Stage, world: World) -> None:
        if stage.name == "align":
            with world.main_first("the base model"):
                self._fetch_base()
        folder = self.folder(stage.name)
        assert folder is not None
        with world.main_first(f"a look at {folder.name}"):
            is_done = folder.is_dir()
        if is_done:
            log.info("%s: done already, %s", stage.name, folder)
        elif stage.is_shared:
            self._make(stage, folder, world)
        else:
            with world.main_first(folder.name):
                if world.is_main:
                    with world.all_cores():  # the others wait
                        self._make(stage, folder, world)

    def _make(self, stage: Stage, folder: Path, world: World) -> None:
        inputs = {name: self.open(name) for name in self._inputs(stage)}
        log.info("%s: building %s", stage.name, folder)
        start = time.monotonic()
        with ExitStack() as stack:
            with (
                world.main_first(f"the folder {folder.name}") if stage.is_shared else nullcontext()
            ):
                if world.is_main:
                    partial = stack.enter_context(artifacts.building(folder, stage.resumable))
                else:
                    partial = artifacts.partial_of(folder)
            module = importlib.import_module(f"gportuguese.{stage.name}")
            facts = module.build(self.config, inputs, partial, world)
            manifest = {
                "stage": stage.name,
                "version": stage.version,
                "digest": folder.name.rpartition("-")[2],
                "name": self.config.name,
                "section": self._section(stage),
                "inputs": {name: inputs[name].digest for name in inputs},
                "runtime": as_tree(self.config.runtime),
                "facts": facts,
                "build_seconds": round(time.monotonic() - start, 1),
            }
            with (
                world.main_first(f"publishing {folder.name}") if stage.is_shared else nullcontext()
            ):
                if world.is_main:
                    self._opened[stage.name] = artifacts.publish(partial, folder, manifest)
        log.info("%s: done in %.1f s", stage.name, time.monotonic() - start)

    def _needed(self, name: str) -> set[str]:
        stage = next(stage for stage in STAGES if stage.name == name)
        return {name}.union(*(self._needed(each) for each in self._inputs(stage)))

    def _inputs(self, stage: Stage) -> tuple[str, ...]:
        used = {each.name for each in self.stages()}
        return tuple(name for name in stage.inputs if name in used)

    def _section(self, stage: Stage) -> dict[str, Any]:
        tree = as_tree(self.config)
        section = dict(tree[stage.name])
        if stage.name == "dump" and not dump.is_remote(self.config.dump):
            section = {}  # a file is what it holds, wherever it lies
        if stage.name == "tokens":
            section = {}  # the files hold documents end to end; blocks are cut when they are read
        if stage.name == "corpus" and self.config.corpus.documents is not None:
            section["documents"] = "own"
        if stage.name == "align":
            from gportuguese import align  # only now: it brings torch

            for key in align.FILES:  # a file is what it holds, wherever it lies
                del section[key]
            if isinstance(self.config.align.base, str):
                section["base"] = "given"
        for key in stage.also:
            other, leaf = key.split(".")
            section[key] = tree[other][leaf]
        return section

    def _identity(self, name: str) -> str | None:
        """What a stage enters later digests with: of a dump its content, else its digest."""
        folder = self.folder(name)
        if folder is None:
            return None
        if name == "dump":
            return str(self.open("dump").facts["sha256"]) if folder.is_dir() else None
        return folder.name.rpartition("-")[2]

    def _content(self, what: str) -> str | None:
        """Content hash of an input from outside, hashed once per process."""
        if what not in self._identities:
            self._identities[what] = self._hash_content(what, download=False)
        return self._identities[what]

    def _hash_content(self, what: str, download: bool) -> str | None:
        if what == "dump":
            return dump.content_hash(self.config.dump, self._root)
        if what == "base":
            from gportuguese import model

            return model.identity_of(self.config.align.base, download)
        if what == "resources":
            from gportuguese import align

            return artifacts.digest_of(
                {
                    key: [artifacts.hash_file(path) for path in paths]
                    for key, paths in align.resource_files(self.config.align).items()
                }
            )
        from gportuguese import corpus

        sha = hashlib.sha256()
        for path in corpus.document_files(self.config.corpus):
            name = corpus.document_name(path, self.config.corpus)
            sha.update(f"{name}\0{artifacts.hash_file(path)}\n".encode())
        return sha.hexdigest()

    def _fetch_base(self) -> None:
        self._identities["base"] = self._hash_content("base", download=True)
