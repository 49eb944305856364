"""`--set section.key=value`: changes one setting before the config is checked."""

from __future__ import annotations

import re
from typing import Any

from gportuguese.config.schema import ConfigError


def set_value(tree: dict[str, Any], defaults: Any, key: str, value: Any) -> None:
    """Sets `key` in a config tree. List entries are addressed by index, starting at 0.

    Sections and lists missing from the tree are filled in from `defaults`. Raises `ConfigError` if a
    list has no such entry. Unknown names are not checked here; parsing rejects them.

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
        # align.base may be a name or a section: a key inside it replaces a name by a section
        node[place] = child if isinstance(child, (dict, list)) else {}
        node = node[place]
    node[_place(node, leaf)] = value


def place_of(key: str) -> str:
    """The key in the notation of error messages.

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
