"""What a language's Wikipedia calls things: tables of names, one YAML a language.

Adding a language is adding a file beside `languages/pt.yaml`. English holds for every wiki beside
its own language; a language without a file has English alone.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gportuguese.config import UserError

_FOLDER = Path(__file__).parent / "languages"


class LanguageError(UserError):
    """A language's table lacks something."""


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
    """Template name -> pattern of the words it leaves; a name in upper case holds as it is written."""
    word_prefixes: tuple[tuple[str, str], ...]
    """The same for names that only begin so."""
    thousands: str
    decimal: str
    months: tuple[str, ...]


@functools.cache
def language_of(code: str) -> Language:
    """The tables for a wiki in the language `code` (as in xml:lang), English filled in beneath.

    Raises `LanguageError` if a table lacks an entry.

    >>> language_of("pt").months[2]
    'março'
    """
    english, own = (_read(path) for path in _paths(code))
    if missing := english.keys() - own.keys():
        raise LanguageError(f"{_paths(code)[1]} lacks {', '.join(sorted(missing))}; see pt.yaml")
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


def hash_tables(code: str) -> str:
    """SHA-256 of the tables that `language_of` reads."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in _paths(code))).hexdigest()


def _paths(code: str) -> tuple[Path, Path]:
    """English, and the language's own table; English again where it has none."""
    english, own = _FOLDER / "en.yaml", _FOLDER / f"{code}.yaml"
    return english, own if own.is_file() else english


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _split_keys(table: dict[str, str]) -> dict[str, str]:
    """Names in lower case, but for codes such as PER, which is a country where "per" is a word."""
    return {
        name if name.isupper() else name.lower(): pattern
        for names, pattern in table.items()
        for name in names.split("|")
    }
