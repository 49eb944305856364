"""The configs shipped with the package, found by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from gportuguese.config.schema import ConfigError


def configs_folder() -> Path:
    """The folder of the shipped configs: inside an installed package, next to `src` in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


def shipped_configs() -> dict[str, str]:
    """Maps the name of each shipped config to its first comment line."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].strip("# ")
        for path in sorted(configs_folder().glob("*.yaml"))
    }


def find_config(given: str | Path) -> Path:
    """Finds the file for `--config`: first by path, then among the shipped configs by name.

    `.yaml` is optional. Raises `ConfigError` with the shipped names if none is found.
    """
    paths = [Path(given), Path(f"{given}.yaml")]
    if len(paths[0].parts) == 1:
        paths += [configs_folder() / path for path in paths]
    for path in paths:
        if path.exists() and not path.is_dir():  # also allows pipes, which are not regular files
            return path
    if paths[0].is_dir():
        raise ConfigError(f"{given} is a folder; pass the path of a YAML file")
    names = list(shipped_configs())
    near = difflib.get_close_matches(str(given), names, 1)
    raise ConfigError(
        f"no config {given}{f', did you mean {near[0]}?' if near else ''}; pass the path of a YAML "
        f"file, or one of the shipped configs: {', '.join(names)} (gpt-pt config --list describes them)"
    )
