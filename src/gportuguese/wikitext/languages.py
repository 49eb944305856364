"""What a language's Wikipedia calls things: tables of names, one YAML a language.

Adding a language is adding a file beside `languages/pt.yaml`. English holds for every wiki beside
its own language; a language without a file has English alone.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent / "languages"


@dataclass(frozen=True, kw_only=True)
class Language:
    """The names of one language, all in lower case, and its way of writing numbers and dates."""

    code: str
    redirect: re.Pattern[str]
    """Matches the start of a redirect page."""
    disambiguation: re.Pattern[str]
    """Finds the template or magic word of a disambiguation page."""
    disambiguation_title: re.Pattern[str]
    tail_sections: frozenset[str]
    """Headings under which there are no sentences."""
    hidden_prefixes: frozenset[str]
    """Namespaces whose links show no words: files and categories."""
    words: dict[str, str]
    """Template name -> pattern of the words it leaves."""
    word_prefixes: tuple[tuple[str, str], ...]
    """The same for names that only begin so."""
    thousands: str
    decimal: str
    months: tuple[str, ...]


@functools.cache
def language_of(code: str) -> Language:
    """The tables for a wiki in the language `code` (as in xml:lang), English filled in beneath.

    >>> language_of("pt").months[2]
    'março'
    """
    english = _read("en")
    own = _read(code) if (_FOLDER / f"{code}.yaml").is_file() else english
    words = {**_split_keys(english["words"]), **_split_keys(own["words"])}

    def both(key: str) -> list[str]:
        return [str(name) for name in (*english[key], *own[key])]

    redirects = "|".join(map(re.escape, both("redirect")))
    disambiguations = "|".join(map(re.escape, both("disambiguation")))
    titles = f"{english['disambiguation_title']}|{own['disambiguation_title']}"
    return Language(
        code=code,
        redirect=re.compile(rf"\s*#\s*(?:{redirects})\b", re.IGNORECASE),
        disambiguation=re.compile(
            rf"\{{\{{\s*(?:{disambiguations})(?:-[\w-]+)?\s*(?:\||\}}\}})|__DISAMBIG__",
            re.IGNORECASE,
        ),
        disambiguation_title=re.compile(rf"\((?:{titles})\)$", re.IGNORECASE),
        tail_sections=frozenset(both("tail_sections")),
        hidden_prefixes=frozenset(both("file_prefixes") + both("category_prefixes")),
        words={name: pattern for name, pattern in words.items() if not name.endswith("*")},
        word_prefixes=tuple((n[:-1], pattern) for n, pattern in words.items() if n.endswith("*")),
        thousands=own["thousands"],
        decimal=own["decimal"],
        months=tuple(own["months"]),
    )


def _read(code: str) -> dict[str, Any]:
    text = (_FOLDER / f"{code}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _split_keys(table: dict[str, str]) -> dict[str, str]:
    return {name.lower(): pattern for names, pattern in table.items() for name in names.split("|")}
