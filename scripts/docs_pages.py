"""The generated parts of the documentation: configuration keys, commands, cost of each recipe.

    python scripts/docs_pages.py             # writes them into docs/
    python scripts/docs_pages.py --check     # fails if one is out of date

A page holds such a part between comments: `<!-- keys -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from gportuguese.cli.arguments import make_parser
from gportuguese.config import Config, as_tree, load_config, schema
from gportuguese.config.bounds import IsLanguage, Matches, OneOf, Within

DOCS = Path(__file__).parents[1] / "docs"
COMMON = ("config", "set", "debug")
"""Options of every command, beside `--help`."""


# --- configuration ---


class Key(NamedTuple):
    """One setting."""

    name: str
    """With its section: `train.seed`."""
    values: str
    default: Any
    meaning: str


def field_docstrings(kind: type) -> dict[str, str]:
    """Maps the fields of a dataclass to the text below each."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    texts = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[field.target.id] = inspect.cleandoc(below.value.value).replace("\n", " ")
    return texts


def keys_of(kind: type, prefix: str = "") -> Iterator[Key]:
    """The settings of a section."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), field_docstrings(kind)
    for field in dataclasses.fields(kind):
        values = values_of(hints[field.name])
        yield Key(prefix + field.name, values, field.default, texts.get(field.name, ""))


def values_of(kind: Any) -> str:
    """The values that a type and its bounds allow, in words.

    >>> values_of(typing.Annotated[int, Within("[1, inf)")] | None)
    'whole number, at least 1, or null'
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        bound = inner[1]
        match bound:
            case OneOf():
                return _choice(f"`{word}`" for word in bound.words)
            case Matches():
                return bound.wanted
            case IsLanguage():
                return "code of a language"
            case Within():
                low, high = bound.interval[1:-1].split(", ")
                least = f"{'at least' if bound.interval[0] == '[' else 'above'} {low}"
                most = f"{'at most' if bound.interval[-1] == ']' else 'below'} {high}"
                limits = least if high == "inf" else f"{least} and {most}"
                return f"{values_of(inner[0])}, {limits}"
    if origin is Literal:
        return _choice(f"`{word}`" for word in inner)
    if origin in (types.UnionType, typing.Union):
        parts = [values_of(part) for part in inner if part is not type(None)]
        parts += ["null"] if type(None) in inner else []
        return ", or ".join(parts)
    if origin is tuple:
        return f"list ({values_of(inner[0])})"
    if dataclasses.is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[kind]


def _choice(words: Iterator[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def sections() -> dict[str, type]:
    """Maps a heading to its dataclass: the sections of a config, then the types used in them."""
    hints = typing.get_type_hints(Config)
    found = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    nested = [
        kind
        for kind in vars(schema).values()
        if dataclasses.is_dataclass(kind)
        and kind.__module__ == schema.__name__
        and kind not in (*found.values(), Config)
    ]
    return found | {kind.__name__: kind for kind in nested}


def all_keys() -> list[Key]:
    """Every setting of the schema."""
    top = [key for key in keys_of(Config) if key.name not in sections()]
    return top + [key for name, kind in sections().items() for key in keys_of(kind, f"{name}.")]


def keys_page() -> str:
    """Markdown of all settings, a heading for each."""
    keys = all_keys()
    names = {key.name for key in keys}
    blocks = []
    for key in keys:
        section = key.name.partition(".")[0] if "." in key.name else None
        if section and not any(block.startswith(f"## {section}\n") for block in blocks):
            about = inspect.cleandoc(sections()[section].__doc__ or "")
            blocks.append(f"## {section}\n\n{about}")
        if key.default is dataclasses.MISSING:
            default = "required"
        else:
            value = as_tree(key.default)
            if isinstance(value, (list, dict)) and len(str(value)) > 60:
                text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=200)
                default = f"default:\n\n```yaml\n{text}```"
            else:
                default = f"default: `{_yaml(value)}`"
        meaning = re.sub(
            r"`([a-z]+\.[a-z_]+)`",
            lambda match: f"[{match[0]}](#{match[1]})" if match[1] in names else match[0],
            key.meaning,
        )
        heading = f'### <a id="{key.name.lower()}"></a>`{key.name}`'  # also an anchor on GitHub
        blocks.append(
            f"{heading}\n\n{meaning}\n\n{key.values[0].upper()}{key.values[1:]}; {default}"
        )
    return "\n\n".join(blocks)


def _yaml(value: Any) -> str:
    """One value as it stands in a YAML file."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


# --- commands ---


def commands_page() -> str:
    """Markdown of all commands, a heading for each."""
    (subparsers,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    common = subparsers.choices["train"]._actions
    blocks = ["## Options of every command", _options([a for a in common if a.dest in COMMON])]
    for name, parser in subparsers.choices.items():
        blocks.append(f"## {name}\n\n{parser.description}")
        if parser.epilog:
            lines = [line.strip() for line in parser.epilog.splitlines()[1:]]
            blocks.append("\n".join(["```text", *lines, "```"]))
        if own := [action for action in parser._actions if action.dest not in (*COMMON, "help")]:
            blocks.append(_options(own))
    return "\n\n".join(blocks)


def _options(actions: list[argparse.Action]) -> str:
    rows = [("argument", "meaning", "default"), ("---", "---", "---")]
    for action in actions:
        value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        names = [f"`{name} {value}`" if value else f"`{name}`" for name in action.option_strings]
        shown = ", ".join(names) or f"`{action.metavar}`"
        is_plain = any(action.default is each for each in (None, False, argparse.SUPPRESS))
        is_plain = is_plain or action.default == []
        default = "required" if action.required and action.option_strings else ""
        default = default if is_plain else f"`{action.default}`"
        about = re.sub(r" *\(default: .*\)$", "", action.help or "") if default else action.help
        about = (about or action.dest.replace("_", " ")).replace("|", "\\|")
        rows.append((shown, about, default))
    # no column of defaults where there are none
    width = 3 if any(row[2] for row in rows[2:]) else 2
    return "\n".join(f"| {' | '.join(row[:width])} |" for row in rows)


# --- recipes ---


def recipes_table() -> str:
    """Markdown: what `gpt-pt plan` says of every card with the config that ships for it."""
    from gportuguese.plan import make_plan, needed_bytes
    from gportuguese.plan.devices import DEVICES

    plans = {
        name: make_plan(load_config(name), measure=False)
        for name in sorted({device.config for device in DEVICES})
    }
    rows = [
        "| card | config | tokens (millions) | memory needed (GB) | hours | cost (USD) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for device in DEVICES:
        plan = plans[device.config]
        (cost,) = (cost for cost in plan.costs if cost.device == device.name)
        memory = needed_bytes("cuda", plan.memory["cuda"].peak_bytes) / 1e9
        sizes = " or ".join(f"{size} GB" for size in device.memory_gb)
        rows.append(
            f"| {device.name}, {sizes} | `{device.config}` | {plan.schedule.tokens / 1e6:,.0f} "
            f"| {memory:.1f} | {cost.hours:.1f} | {cost.usd:,.2f} |"
        )
    return "\n".join(rows)


# --- pages ---

PARTS = {
    "configuration.md": ("keys", keys_page),
    "commands.md": ("commands", commands_page),
    "recipes.md": ("plan", recipes_table),
}
"""Maps a page to the name of its generated part and the function that makes it."""


def page_with_part(name: str, page: str) -> str:
    """The text of a page with its part made anew."""
    part, make = PARTS[name]
    start, end = f"<!-- {part} -->", "<!-- end -->"
    before, _, rest = page.partition(start)
    return f"{before}{start}\n\n{make()}\n\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Writes or checks the generated parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for name in PARTS:
        page = DOCS / name
        old = page.read_text(encoding="utf-8")
        new = page_with_part(name, old)
        if args.check and new != old:
            sys.exit(f"{page} is out of date; run: python scripts/docs_pages.py")
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
