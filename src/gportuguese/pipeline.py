"""Builds and opens the stages of a config, and reports their state."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gportuguese import artifacts, hashes, plugins
from gportuguese.artifacts import Artifact, ArtifactError
from gportuguese.config import Config, UserError, as_tree, checked, load_config, resolve_path
from gportuguese.progress import busy
from gportuguese.stages import STAGES, Stage
from gportuguese.world import World, init_world

log = logging.getLogger("gportuguese")


@dataclass(frozen=True)
class StageStatus:
    """The state of one stage."""

    name: str
    state: str
    """`done`, `partial` or `missing`."""
    folder: Path | None
    """None if its inputs have not been fetched, because its digest is then unknown."""


class Pipeline:
    """The stages of one config and their folders.

    `config` may also be the name of a shipped config or a YAML file. A `Config` is checked as one from
    YAML is; raises `ConfigError` that lists all problems.

    >>> from gportuguese import load_config
    >>> pipeline = Pipeline(load_config("demo"))
    >>> [status.state for status in pipeline.status()][-1]
    'missing'
    >>> corpus = pipeline.build("corpus")  # builds `dump` first
    >>> sorted(corpus.facts["documents"])
    ['test', 'train', 'valid']
    """

    def __init__(self, config: Config | str | Path) -> None:
        config = config if isinstance(config, Config) else load_config(config)
        self.config = self._given = checked(config)
        self._callbacks: Sequence[Any] = ()
        self._metrics: Sequence[Any] = ()
        self._root = resolve_path(config.runtime.artifacts_dir)
        self._folders: dict[str, Path] = {}
        self._opened: dict[str, Artifact] = {}

    def stages(self) -> list[Stage]:
        """The stages this config uses, in order."""
        return [stage for stage in STAGES.values() if stage.is_used(self.config)]

    def folder(self, name: str) -> Path | None:
        """The folder of a stage, built or not; None if one of its inputs has not been fetched."""
        if name not in self._folders:
            identity = STAGES[name].identity(self.config, self.folder)
            if identity is None:
                return None
            self._folders[name] = self._root / f"{name}-{hashes.digest_of(identity)}"
        return self._folders[name]

    def status(self) -> list[StageStatus]:
        """The state of every stage. Builds and fetches nothing."""
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

    def built_folder(self, name: str, command: str | None = None) -> Path:
        """The folder of a built stage; raises `ArtifactError`, with the `command` to run, if it is not built."""
        folder = self.folder(name)
        if folder is None or not folder.is_dir():
            command = command or f"gpt-pt {name}"
            raise ArtifactError(f"no {name} at {folder or self._root}; run: {command}")
        return folder

    def open(self, name: str) -> Artifact:
        """Opens a built stage and checks every file; raises `ArtifactError` if it is not built."""
        if name not in self._opened:
            self._opened[name] = artifacts.open_artifact(self.built_folder(name))
        return self._opened[name]

    def find(self, name: str) -> Artifact | None:
        """A stage with its manifest checked, but not its files; None if it is not built."""
        folder = self.folder(name)
        return artifacts.read_manifest(folder) if folder is not None and folder.is_dir() else None

    def build(
        self,
        name: str,
        world: World | None = None,
        *,
        callbacks: Sequence[Any] = (),
        metrics: Sequence[Any] = (),
    ) -> Artifact:
        """Builds a stage and any missing stages before it; finished stages are reused.

        Args:
            name: A stage, such as `corpus` or `train`.
            world: The resources of this process; by default those of `config.runtime`.
            callbacks: fastai callbacks for the `train` stage, which runs one fit for each phase.
            metrics: fastai metrics, or functions of logits `[B, T, V]` and targets `[B, T]`. Their
                values go to `metrics.csv`.

        Returns:
            The finished folder. Its `facts` are what the stage counted and measured.

        Raises:
            UserError: A setting, an input or the machine does not allow it.
        """
        if name not in STAGES:
            raise UserError(f"no stage {name!r}; there are {', '.join(STAGES)}")
        if callbacks or metrics:
            self._set_callbacks(name, callbacks, metrics)
        world = world or init_world(self.config.runtime)
        with busy("checking finished stages"):
            self._build(name, world)
            return self.open(name)

    def _set_callbacks(self, name: str, callbacks: Sequence[Any], metrics: Sequence[Any]) -> None:
        """Keeps callbacks for the stage that takes them, and their names for its digest."""
        if not any(STAGES[each].takes_callbacks for each in self._needed(name)):
            raise plugins.PluginError(f"callbacks and metrics run in train, which {name} precedes")
        plugins.check_callbacks(callbacks)
        names = (*self._given.train.callbacks, *map(plugins.name_of, callbacks))
        self.config = replace(self._given, train=replace(self._given.train, callbacks=names))
        self._callbacks, self._metrics = callbacks, metrics
        self._folders, self._opened = {}, {}

    def _build(self, name: str, world: World) -> None:
        needed = self._needed(name)
        # the main process decides, because files and caches of other hosts may differ
        missing = [
            STAGES[each]
            for each in world.from_main("looking for missing stages", lambda: self._missing(needed))
        ]
        for stage in missing:
            if stage.check is not None:
                stage.check(world, self._given)
        for stage in missing:  # before anything is built, which may take hours
            if stage.fetch is not None:
                fetching = f"fetching files for {stage.name}"
                with world.main_first(fetching), busy(fetching):
                    if world.is_main:
                        stage.fetch(self.config)
        for stage in self.stages():
            if stage.name in needed:
                self._build_stage(stage, world)

    def _build_stage(self, stage: Stage, world: World) -> None:
        def find() -> tuple[str, bool]:
            folder = self.folder(stage.name)
            assert folder is not None
            return folder.name, folder.is_dir()

        found, is_done = world.from_main(f"looking for the folder of {stage.name}", find)
        folder = self._folders[stage.name] = self._root / found
        if is_done:
            log.info("%s: already done, %s", stage.name, folder)
            if stage.takes_callbacks and (self._callbacks or self._metrics):
                log.warning("callbacks and metrics did not run; remove %s to train again", folder)
        elif stage.is_shared:
            self._make(stage, folder, world)
        else:
            with world.main_first(folder.name):
                if world.is_main:
                    with world.all_cores():  # the other processes are waiting
                        self._make(stage, folder, world)

    def _make(self, stage: Stage, folder: Path, world: World) -> None:
        inputs = {name: self.open(name) for name in stage.used_inputs(self.config)}
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
            with busy(stage.name):
                module = importlib.import_module(f"gportuguese.{stage.module or stage.name}")
                facts = module.build(self.config, inputs, partial, world, **self._options(stage))
            manifest = {
                "stage": stage.name,
                "version": stage.version,
                "digest": artifacts.parts_of(folder)[1],
                "name": self.config.name,
                "config": as_tree(self.config),  # lets `export` work from the folder alone
                "section": stage.settings(self.config),
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

    def _missing(self, needed: set[str]) -> list[str]:
        """The stages among these that are not built, in order."""
        names = [stage.name for stage in self.stages() if stage.name in needed]
        folders = {name: self.folder(name) for name in names}
        return [name for name, folder in folders.items() if folder is None or not folder.is_dir()]

    def _options(self, stage: Stage) -> dict[str, Any]:
        if not stage.takes_callbacks:
            return {}
        named = plugins.load_callbacks(self._given.train.callbacks)
        return {"callbacks": [*named, *self._callbacks], "metrics": self._metrics}

    def _needed(self, name: str) -> set[str]:
        inputs = STAGES[name].used_inputs(self.config)
        return {name}.union(*(self._needed(each) for each in inputs))
