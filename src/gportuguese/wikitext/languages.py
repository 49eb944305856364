"""Tables of the names that each language's Wikipedia uses, one YAML file per language.

To add a language, add a file beside `languages/pt.yaml` (see docs/languages.md). The English table
applies to every wiki beside its own. Without a file, namespace names still come from the dump's header
and from `languages/mediawiki.tsv`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gportuguese.config import UserError

_FOLDER = Path(__file__).parent / "languages"
_SHARED = ("mediawiki.tsv", "tongues.tsv", "countries.tsv")
_MEDIAWIKI = ("media", "file", "template", "category", "redirect", "disambiguation")
_WORD = re.compile(r"\w[\w'’-]*")
_NUMBER = re.compile(r"([-+−]?)(\d{1,30})(?:[.](\d+))?(\s.*)?", re.DOTALL)


class LanguageError(UserError):
    """A language's table lacks an entry."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """The names of one language in lower case, and how it writes numbers and dates."""

    code: str
    redirect: re.Pattern[str]
    """Matches the start of a redirect page."""
    disambiguation: re.Pattern[str]
    """Finds the template or magic word of a disambiguation page."""
    disambiguation_title: re.Pattern[str]
    tail_sections: frozenset[str]
    """Headings of sections without sentences, such as references."""
    tail_words: frozenset[str]
    """A heading made only of these is end matter too: "Fontes e ligações externas"."""
    tail_fillers: frozenset[str]
    """Words that may stand between `tail_words`."""
    hidden_prefixes: frozenset[str]
    """Namespaces whose links show nothing: files and categories."""
    media_prefixes: frozenset[str]
    """The namespace of links to sound and film files, which show their label."""
    template_prefixes: frozenset[str]
    words: dict[str, str]
    """Template name -> pattern of the words it leaves. Names in upper case are case-sensitive."""
    word_prefixes: tuple[tuple[str, str], ...]
    """The same for the beginnings of names."""
    nothing: frozenset[str]
    """Templates that leave nothing: boxes, navigation, notes, maintenance."""
    nothing_prefixes: tuple[str, ...]
    tongues: dict[str, str]
    """Language code -> its name in this language."""
    countries: dict[str, str]
    """Three-letter country code -> its name; {{UKR}} shows flag and name."""
    dangling: str
    """Pattern that looks back at a word that needs another after it, as in "nascido na, em"."""
    editors_note: re.Pattern[str]
    """Matches editors' notes in brackets: [carece de fontes?]"""
    spaced: str
    """Punctuation with a space before it, as in French."""
    thousands: str
    decimal: str
    months: tuple[str, ...]
    lookups: dict[str, tuple[str | None, str, str]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Cache of `templates.lookup`."""

    def is_tail(self, heading: str) -> bool:
        """Whether a heading starts end matter: references, notes, links.

        >>> language_of("pt").is_tail("Fontes e ligações externas")
        True
        """
        heading = heading.rstrip(".: ").lower()
        if heading in self.tail_sections:
            return True
        words = set(_WORD.findall(heading))
        return bool(words & self.tail_words) and words <= self.tail_words | self.tail_fillers

    def write_number(self, value: str) -> str:
        """A number with the language's separators, and the text after it; other text unchanged.

        >>> language_of("pt").write_number("1234567.5")
        '1 234 567,5'
        """
        parts = _NUMBER.fullmatch(value.strip())
        if parts is None:
            return value
        sign, whole, fraction, rest = parts.groups("")
        grouped = f"{int(whole):,}".replace(",", self.thousands) if len(whole) > 3 else whole
        return sign + grouped + (self.decimal + fraction if fraction else "") + rest

    def leaves_nothing(self, name: str) -> bool:
        """Whether the table says that a template leaves nothing.

        >>> language_of("pt").leaves_nothing("Info/Rio"), language_of("pt").leaves_nothing("séc")
        (True, False)
        """
        key = name.lower()
        if name in self.words or key in self.words:
            return False
        return key in self.nothing or key.startswith(self.nothing_prefixes)


@functools.cache
def language_of(code: str, namespaces: tuple[tuple[int, str], ...] = ()) -> Language:
    """The tables of the language `code` (as in xml:lang), with English where they say nothing.

    `namespaces` are the numbers and names in the dump's header. Raises `LanguageError` if a table
    lacks an entry.

    >>> language_of("pt").months[2]
    'março'
    """
    english, own = (_read(path) for path in _paths(code))
    if missing := english.keys() - own.keys():
        raise LanguageError(f"{_paths(code)[1]} lacks {', '.join(sorted(missing))}; see pt.yaml")
    words = {**_split_keys(english["words"]), **_split_keys(own["words"])}
    for name in {name.lower() for name in own["nothing"]} - _split_keys(own["words"]).keys():
        words.pop(name, None)  # the language's own table overrides English
    wiki = _mediawiki_names(code)
    for key, kind in ((-2, "media"), (6, "file"), (10, "template"), (14, "category")):
        wiki[kind] |= {name.lower() for number, name in namespaces if number == key}

    def both(key: str) -> list[str]:
        return [str(name) for name in (*english[key], *own[key])]

    redirects = "|".join(map(re.escape, sorted(wiki["redirect"])))
    disambiguations = "|".join(
        map(re.escape, sorted({*both("disambiguation"), *wiki["disambiguation"]}))
    )
    titles = f"{english['disambiguation_title']}|{own['disambiguation_title']}"
    nothing = {name.lower() for name in both("nothing")} - _split_keys(own["words"]).keys()
    # look-behind from punctuation, which is rarer than words; `re` needs one width per alternative
    widths = {
        len(word): [w for w in own["dangling"] if len(w) == len(word)] for word in own["dangling"]
    }
    dangling = "|".join(rf"(?<=[ (\n](?:{'|'.join(same)}).)" for same in widths.values())
    return Language(
        code=code,
        redirect=re.compile(rf"\s*[#＃]\s*(?:{redirects})\b", re.IGNORECASE),
        disambiguation=re.compile(
            rf"\{{\{{\s*(?:{disambiguations})(?:-[\w-]+)?\s*(?:\||\}}\}})|__DISAMBIG__",
            re.IGNORECASE,
        ),
        disambiguation_title=re.compile(rf"\((?:{titles})\)$", re.IGNORECASE),
        tail_sections=frozenset(both("tail_sections")),
        tail_words=frozenset(both("tail_words")),
        tail_fillers=frozenset(both("tail_fillers")),
        hidden_prefixes=frozenset(wiki["file"] | wiki["category"]),
        media_prefixes=frozenset(wiki["media"]),
        template_prefixes=frozenset(wiki["template"]),
        words={name: pattern for name, pattern in words.items() if not name.endswith("*")},
        word_prefixes=tuple((n[:-1], pattern) for n, pattern in words.items() if n.endswith("*")),
        nothing=frozenset(name for name in nothing if not name.endswith("*")),
        nothing_prefixes=tuple(name[:-1] for name in nothing if name.endswith("*")),
        tongues=_names("tongues.tsv", code),
        countries=_names("countries.tsv", code),
        dangling=dangling,
        editors_note=re.compile(
            rf" ?\[(?:{'|'.join(map(re.escape, both('editors_notes')))})[^\[\]]{{0,40}}\]",
            re.IGNORECASE,
        ),
        spaced=own["spaced"],
        thousands=own["thousands"],
        decimal=own["decimal"],
        months=tuple(own["months"]),
    )


def has_table(code: str) -> bool:
    """Whether a language has a table of its own."""
    return (_FOLDER / f"{code}.yaml").is_file()


def hash_tables(code: str) -> str:
    """SHA-256 of the tables that `language_of` reads."""
    paths = [*_paths(code), *(_FOLDER / name for name in _SHARED)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _paths(code: str) -> tuple[Path, Path]:
    """English, and the language's own table; English again where it has none."""
    english, own = _FOLDER / "en.yaml", _FOLDER / f"{code}.yaml"
    return english, own if own.is_file() else english


def _read(path: Path) -> dict[str, Any]:
    # BaseLoader: every scalar is text, where others take "no" for False
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))


def _rows(name: str) -> Iterator[list[str]]:
    """The rows of a shared table, split at tabs, without comments."""
    for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line.split("\t")


def _mediawiki_names(code: str) -> dict[str, set[str]]:
    """Names of namespaces, redirects and disambiguations, in English and in the wiki's language."""
    found = {
        "media": {"media"},
        "file": {"file", "image"},
        "template": {"template"},
        "category": {"category"},
        "redirect": {"redirect"},
        "disambiguation": set(),
    }
    base = code.partition("-")[0]  # pt for pt-br
    rows = {row[0]: row[1:] for row in _rows("mediawiki.tsv")}
    for kind, names in zip(_MEDIAWIKI, rows.get(code) or rows.get(base) or (), strict=False):
        found[kind] |= set(filter(None, names.split("|")))
    return found


def _names(table: str, code: str) -> dict[str, str]:
    """Code -> name in a language; empty if the table has no column for the language."""
    header, *rows = _rows(table)
    if code not in header[1:]:
        return {}
    column = header.index(code)
    return {key: row[column] for row in rows for key in row[0].split("|")}


def _split_keys(table: dict[str, str]) -> dict[str, str]:
    """Names in lower case, except codes: {{PER}} is a country, {{per}} is not."""
    return {
        name if name.isupper() else name.lower(): pattern
        for names, pattern in table.items()
        for name in names.split("|")
    }
