"""Finds the model or stage that a command-line argument refers to."""

from __future__ import annotations

import errno
import logging
import re
import shlex
import time
from pathlib import Path

from gportuguese import artifacts, base
from gportuguese.config import (
    Config,
    ConfigError,
    UserError,
    config_of,
    did_you_mean,
    is_path,
    resolve_path,
)

log = logging.getLogger("gportuguese")

_DIGEST = "[0-9a-f]" * 12
_IDS_WITHOUT_USER = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
"""Models of the Hub's first years. Any other name without a user is a folder that is missing here."""
_NEEDS_A_RUN = (
    "export and push take a run's artifacts folder or a stage in it, not a model from the Hub, because "
    "the card is written from the run's manifests"
)


class LocateError(UserError):
    """The argument matches no model or run, or several."""


def find_model(source: str) -> Path:
    """Returns and logs the folder of a model.

    `source` is an artifacts folder with one trained model, a stage folder, its `model` folder, any
    folder that transformers can load, or a Hub id, which is fetched. Raises `UserError` if there is
    no such model, or more than one.
    """
    path = resolve_path(source)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            raise LocateError(
                f"{source[:40]!r}... is too long for the name of a model; pass the model before a prompt"
            ) from error
    if path.is_dir():
        stage = _only_stage(path, "train") if _stages(path, "train") else path
        folder = stage / "model" if (stage / "model" / "config.json").is_file() else stage
        if not (folder / "config.json").is_file():
            raise LocateError(
                f"no model in {path}: it holds neither a trained run (train-0123456789ab) nor a model "
                f"that transformers can load (config.json); to train one, run: {_command('train', path)}"
            )
    elif path.exists() or _is_path(source):
        problem = "is a file" if path.exists() else f"does not exist{did_you_mean(path)}"
        raise LocateError(f"{path} {problem}; pass a model folder, or select a run by --config")
    elif "/" in source or source in _IDS_WITHOUT_USER:
        folder = _from_hub(source)
    else:
        raise LocateError(
            f"there is no folder {source!r} in {Path.cwd()}, and models on the Hub have ids such as "
            "user/name; to train a model here, run: gpt-pt train"
        )
    log.info("model: %s", folder)
    return folder


def _is_path(source: str) -> bool:
    """Whether an argument that does not exist must be a path, because it cannot be a Hub id."""
    return (
        is_path(source)
        or source.count("/") > 1
        or source.endswith("/")
        or re.search(rf"-{_DIGEST}$", source) is not None  # artifacts/train-0123456789ab
    )


def find_stage(source: str, name: str) -> Path:
    """The folder of a run's finished stage `name`: `train` or `export`.

    `source` is an artifacts folder with one such stage, the folder of the run's `train` or `export`
    stage, or the `model` folder of `train`. Raises `UserError` if there is no such stage, or more
    than one.
    """
    folder, here = _stage_of(absolute(resolve_path(source)), name), Path.cwd()
    return folder.relative_to(here) if here in folder.parents else folder  # short in messages


def absolute(path: Path) -> Path:
    """The whole path, in which a stage that is a link stays in the folder of its run."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _stage_of(path: Path, name: str) -> Path:
    if path.name == "model" and (path.parent / artifacts.MANIFEST).is_file():
        path = path.parent
    if not path.is_dir():
        problem = "is a file" if path.exists() else f"does not exist{did_you_mean(path)}"
        raise LocateError(f"{path} {problem}; {_NEEDS_A_RUN}")
    # the name alone does not tell: an artifacts folder may be called train-2024
    stage = next((each for each in ("train", "export") if path in _stages(path.parent, each)), None)
    if stage == name:
        return path
    if (stage, name) == ("export", "train"):
        return path.with_name(f"train-{artifacts.read_manifest(path).manifest['inputs']['train']}")
    if (stage, name) == ("train", "export"):
        return _only_stage(path.parent, "export", of=path)
    if (path / "config.json").is_file():
        raise LocateError(
            f"{path} is a model without a run; {_NEEDS_A_RUN}. To upload the folder as it is, run: "
            f"hf upload USER/NAME {path}"
        )
    return _only_stage(path, name)


def config_of_run(folder: Path, overrides: tuple[str, ...]) -> Config:
    """The config that a stage folder was built from, with `section.key=value` overrides.

    Raises `LocateError` if the manifest has no config, or that of another version.
    """
    tree = artifacts.read_manifest(folder).manifest.get("config")
    if tree is None:
        raise LocateError(f"the manifest of {folder} has no config; pass the run's --config")
    tree["runtime"]["artifacts_dir"] = str(folder.parent)
    try:
        config_of(tree, (), str(folder))
    except ConfigError as error:
        raise LocateError(
            f"{folder} was built by another version of gportuguese; use that version, or pass the "
            f"run's --config to build it again. Settings that this version does not know:\n{error}"
        ) from error
    return config_of(tree, overrides, str(folder))


def _stages(root: Path, name: str) -> list[Path]:
    """The finished stages of this name in a folder."""
    return [path.parent for path in root.glob(f"{name}-{_DIGEST}/{artifacts.MANIFEST}")]


def _only_stage(root: Path, name: str, of: Path | None = None) -> Path:
    """The only stage of this name in an artifacts folder; with `of`, the one built on that training."""
    found = _stages(root, name)
    if of is not None:
        digest = artifacts.parts_of(of)[1]
        found = [
            f for f in found if artifacts.read_manifest(f).manifest["inputs"]["train"] == digest
        ]
    if not found:
        raise LocateError(
            f"no finished `{name}` stage {'of' if of else 'in'} {of or root}; run: "
            f"{_command(name, root, of)}"
        )
    if len(found) > 1:
        built = {folder: folder.stat().st_mtime for folder in found}
        lines = [
            f"  {folder} ({artifacts.read_manifest(folder).manifest['name']}, "
            f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(built[folder]))})"
            for folder in sorted(found, key=built.__getitem__, reverse=True)
        ]
        raise LocateError(
            "\n".join([f"{root} holds {len(found)} `{name}` stages; pass one of them:", *lines])
        )
    return found[0]


def _command(name: str, root: Path, of: Path | None = None) -> str:
    """The command that builds a stage, with the config of the newest finished stage in a folder."""
    words = ["gpt-pt", name]
    if name == "export" and (of or _stages(root, "train")):
        return shlex.join([*words, str(of or root)])
    stages = root.parent if root.suffix == ".partial" else root
    found = [*stages.glob(f"*-{_DIGEST}/{artifacts.MANIFEST}"), *root.glob(artifacts.MANIFEST)]
    if found:
        words += ["--config", str(max(found, key=lambda path: path.stat().st_mtime).parent)]
    return shlex.join(words)


def _from_hub(repo: str) -> Path:
    try:
        folder = base.hub_folder(repo, download=False)
        if folder is None:
            log.info("%s is not a local folder: fetching it from the Hub", repo)
            folder = base.hub_folder(repo, download=True)
    except base.ModelError as error:
        raise LocateError(
            f"no local folder {repo}, and {error}; or select a run by --config"
        ) from error
    assert folder is not None
    return folder
