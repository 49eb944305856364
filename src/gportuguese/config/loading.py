"""Loads a YAML file into a `Config` and reports all its problems at once."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import re
import types
import typing
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from gportuguese.config.overrides import place_of, set_value
from gportuguese.config.relations import broken_relations
from gportuguese.config.schema import Config, ConfigError
from gportuguese.config.shipped import configs_folder, find_config

_MAX_SHOWN = 60  # characters of a value in an error message


class _Written(int):
    """An integer that remembers its text, which a setting that is text keeps: `subset: 2023_01`."""

    text: str


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that `1e-3` is a number and a repeated key is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A section; raises `yaml.YAMLError` that names the line of a repeated key."""
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: {key.value!r} is given twice")
                seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """An integer."""
        number = _Written(super().construct_yaml_int(node))
        number.text = node.value
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def load_config(path: str | Path | None = None, overrides: str | tuple[str, ...] = ()) -> Config:
    """Loads a YAML file, applies `section.key=value` overrides (one or several), and returns the `Config`.

    `path` may be the name of a shipped config; None loads the demo. Raises `ConfigError` that lists
    all problems.
    """
    if isinstance(overrides, str):
        overrides = (overrides,)
    try:
        path = configs_folder() / "demo.yaml" if path is None else find_config(path)
        # as_tree: a section that aliases share becomes several
        tree = as_tree(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    # ValueError: no UTF-8, or a date like 2016-31-12; RecursionError: an alias inside itself
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings; for examples, run: gpt-pt config --list")
    return config_of(tree, overrides, str(path))


def config_of(tree: dict[str, Any], overrides: tuple[str, ...], source: str) -> Config:
    """Builds a `Config` from a tree like those of `as_tree`, with overrides applied.

    `source` names the tree in error messages. Raises `ConfigError` that lists all problems.
    """
    changed = as_tree(tree)
    rejected = [problem for each in overrides if (problem := _apply(changed, each))]
    config, problems = _checked(changed)
    if rejected or problems:
        raise ConfigError(_with_origins(source, tree, overrides, rejected))
    return typing.cast(Config, config)


def checked(config: Config) -> Config:
    """A config built in Python, checked as one from YAML is.

    Raises `ConfigError` that lists all problems.

    >>> from gportuguese.config import TrainConfig
    >>> checked(Config(name="mine", train=TrainConfig(seed=-1)))
    Traceback (most recent call last):
    gportuguese.config.schema.ConfigError: the config 'mine':
      - train.seed: -1 must be at least 0
    """
    return config_of(as_tree(config), (), f"the config {config.name!r}")


def _apply(tree: dict[str, Any], override: str) -> str | None:
    """Applies one override; returns an error message if it cannot be applied."""
    key, equals, text = override.partition("=")
    if not equals:
        return f"{_flag(override)}: write it as section.key=value"
    try:
        set_value(tree, as_tree(Config(name="")), key.strip(), yaml.load(text, Loader=_Loader))
    except ConfigError as error:
        return f"{_flag(override)}: {error}"
    except (yaml.YAMLError, ValueError):
        return f"{_flag(override)}: the value is not YAML"
    return None


def _checked(tree: dict[str, Any]) -> tuple[Config | None, list[str]]:
    """Parses and checks a tree; returns the config and its problems."""
    problems: list[str] = []
    config = _parse(Config, tree, "", problems)
    if not problems:
        problems += broken_relations(config)
    return config, problems


def _with_origins(
    source: str, tree: dict[str, Any], overrides: tuple[str, ...], rejected: list[str]
) -> str:
    """All problems as text: those of the file under its name, the others with the flag that caused them."""
    origins = dict.fromkeys(_checked(tree)[1])
    for override in overrides:
        _apply(tree, override)
        origins = {problem: origins.get(problem, override) for problem in _checked(tree)[1]}
    of_file = [f"  - {problem}" for problem, override in origins.items() if override is None]
    of_flags = [
        f"{_flag(override)}: {problem.removeprefix(place_of(override.partition('=')[0]) + ': ')}"
        for problem, override in origins.items()
        if override is not None
    ]
    return "\n".join([*([f"{source}:", *of_file] if of_file else []), *rejected, *of_flags])


def _flag(override: str) -> str:
    return f"--set {override if len(override) <= 70 else override[:66] + ' ...'}"


def asset_path(name: str) -> Path:
    """The path of a file shipped with the package."""
    return Path(__file__).parents[1] / "assets" / name


def resolve_path(source: str) -> Path:
    """Resolves a path from the config, including `package:NAME` and `~`."""
    if source.startswith("package:"):
        return asset_path(source.removeprefix("package:"))
    with suppress(RuntimeError):  # no such user
        return Path(source).expanduser()
    return Path(source)


def is_path(given: str) -> bool:
    """Whether a name of a model or of documents is a path for sure: `data/new` is one if `data` is a folder.

    Other names with one slash may be Hub ids.
    """
    first, slash, _ = given.partition("/")
    return given.startswith(("package:", ".", "/", "~")) or bool(slash and Path(first).is_dir())


def did_you_mean(missing: Path) -> str:
    """` (did you mean ...?)` with the path that is nearest to one that does not exist; empty if none is near.

    Empty for a path that exists, such as a folder where a file is wanted.
    """
    with suppress(OSError):
        if missing.exists():
            return ""
        known, rest = Path(), list(missing.parts)
        while len(rest) > 1 and (known / rest[0]).is_dir():
            known /= rest.pop(0)
        names = sorted(each.name for each in known.iterdir())
        close = difflib.get_close_matches(rest[0], names, n=1)
        close += [name for name in names if name.startswith(f"{rest[0]}.")]  # without its suffix
        if close:
            whole = known.joinpath(close[0], *rest[1:])
            return f" (did you mean {whole if whole.exists() else known / close[0]}?)"
    return ""


def as_tree(value: Any) -> Any:
    """Converts a config dataclass to plain dicts and lists, for YAML, JSON and digests."""
    tree = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    if isinstance(tree, dict):
        return {key: as_tree(item) for key, item in tree.items()}
    return [as_tree(item) for item in tree] if isinstance(tree, (list, tuple)) else tree


def _parse(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """Converts `value` to type `kind`. Problems are appended to the list."""
    if dataclasses.is_dataclass(kind):
        return _parse_section(kind, value, where, problems)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        found = len(problems)
        value = _parse(arguments[0], value, where, problems)
        if len(problems) == found and (problem := arguments[1].problem(value)):
            problems.append(f"{where}: {_shown(value)} {problem}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        for choice in choices:
            if dataclasses.is_dataclass(choice) == isinstance(value, dict):
                return _parse(choice, value, where, problems)
        return _parse(choices[0], value, where, problems)
    if origin is Literal:
        if value is False and "off" in arguments:  # YAML 1.1 reads `off` as false
            return "off"
        if value not in arguments:
            problems.append(
                f"{where}: {_shown(value)} is not one of {', '.join(map(repr, arguments))}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list):
            problems.append(f"{where}: expected a list, got {_shown(value)}")
            return ()
        items = [
            _parse(arguments[0], item, f"{where}[{index}]", problems)
            for index, item in enumerate(value)
        ]
        return tuple(items)
    if isinstance(value, _Written):
        value = value.text if kind is str else int(value)
    elif kind is str and type(value) is int:  # from Python: DumpConfig(date=20161101)
        value = str(value)
    if kind is str and type(value) is datetime.date:  # YAML reads 2016-11-01 as a date
        return value.strftime("%Y%m%d") if where == "dump.date" else value.isoformat()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, bool):  # the language `no`
        word = str(value).lower()
        problems.append(f"{where}: YAML reads this word as {word}; put it in quotes, such as 'no'")
    elif kind is str and isinstance(value, float):
        problems.append(f"{where}: YAML reads this as the number {value}; put it in quotes")
    elif type(value) is not kind:
        problems.append(f"{where}: expected {kind.__name__}, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 4]} ..."


def _settings() -> list[str]:
    """All settings as `section.key`."""
    sections = typing.get_type_hints(Config)
    return [
        f"{section}.{field.name}"
        for section, kind in sections.items()
        if dataclasses.is_dataclass(kind)
        for field in dataclasses.fields(kind)
    ]


def _parse_section(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where or 'config'}: expected a section, got {_shown(value)}")
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            # a setting without its section first: `block_size` for `tokens.block_size`
            inside = [] if where else [each for each in _settings() if each.endswith(f".{key}")]
            close = inside or difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(hints)}"
            problems.append(f"{name}: unknown key{hint}")
        else:
            values[key] = _parse(hints[key], item, name, problems)
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in value:
            problems.append(f"{where + '.' if where else ''}{field.name}: missing")
            values[field.name] = None
    return kind(**values)
