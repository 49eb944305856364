"""Names of templates as calls, titles and redirects write them."""

from __future__ import annotations

import html
import re

_SPACES = re.compile(r"[\s_]+")


def template_name(title: str, prefixes: frozenset[str]) -> str:
    """The name of a template without its namespace (one of `prefixes`), with single spaces.

    >>> template_name(" predefinição:Lang_en#Uso", frozenset(("predefinição",)))
    'Lang en'
    """
    if "&" in title:
        title = html.unescape(title)
    name = _SPACES.sub(" ", title.partition("#")[0]).strip()
    prefix, colon, rest = name.partition(":")
    return rest.strip() if colon and prefix.strip().lower() in prefixes else name


def definition_key(name: str) -> str:
    """The name under which a definition is stored, with a capital as on every Wikipedia.

    >>> definition_key("água doce")
    'Água doce'
    """
    return name[:1].upper() + name[1:]
