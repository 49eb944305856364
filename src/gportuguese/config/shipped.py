"""The configs that travel with the package, found by name."""

from __future__ import annotations

from pathlib import Path

from gportuguese.config.schema import ConfigError


def configs_folder() -> Path:
    """Where the shipped configs are: in an installed package, or beside `src` in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


def shipped_configs() -> dict[str, str]:
    """The name of each shipped config and its first comment line."""
    return {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].strip("# ")
        for path in sorted(configs_folder().glob("*.yaml"))
    }


def find_config(given: str | Path) -> Path:
    """The file that `--config` means: the one at that path, else the shipped one of that name.

    `.yaml` may be left out. Raises `ConfigError` with the names there are if none is found.
    """
    paths = [Path(given), Path(f"{given}.yaml")]
    if len(paths[0].parts) == 1:
        paths += [configs_folder() / path for path in paths]
    for path in paths:
        if path.exists() and not path.is_dir():  # a pipe is no regular file, but can be read
            return path
    raise ConfigError(
        f"no config {given}; give the path of a YAML file, or one of the shipped configs: "
        f"{', '.join(shipped_configs())} (gpt-pt config --list describes them)"
    )
