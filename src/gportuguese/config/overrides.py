"""`--set section.key=value`: changes one setting of a config before it is checked."""

from __future__ import annotations

import re
from typing import Any

from gportuguese.config.schema import ConfigError


def set_value(tree: dict[str, Any], defaults: Any, key: str, value: Any) -> None:
    """Sets `key` of a config's tree; entries of a list go by their index, from 0.

    Sections and lists that the tree lacks come from `defaults`. Raises `ConfigError` for an entry
    that a list lacks; unknown names are left for parsing to refuse.

    >>> tree = {"phases": [{"lr_max": 1.0}]}
    >>> set_value(tree, {}, "phases.0.lr_max", 0.1)
    >>> tree
    {'phases': [{'lr_max': 0.1}]}
    """
    *parents, leaf = key.replace("[", ".").replace("]", "").split(".")
    node: Any = tree
    for part in parents:
        defaults = defaults.get(part) if isinstance(defaults, dict) else None
        place = _place(node, part)
        child = node[place] if isinstance(node, list) else node.get(place, defaults)
        # a plain value gives way to a section: align.base may be either
        node[place] = child if isinstance(child, (dict, list)) else {}
        node = node[place]
    node[_place(node, leaf)] = value


def place_of(key: str) -> str:
    """How problems name the place that a key means.

    >>> place_of("train.phases.0.lr_max")
    'train.phases[0].lr_max'
    """
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", key)


def _place(node: Any, part: str) -> Any:
    if not isinstance(node, list):
        return part
    if not (part.isdecimal() and int(part) < len(node)):
        entries = f"entries 0 to {len(node) - 1}" if node else "no entries"
        raise ConfigError(f"no entry {part!r}; the list has {entries}")
    return int(part)
