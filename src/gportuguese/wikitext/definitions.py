"""Template definitions: found by name, and sorted by shape into words, boxes and Lua calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gportuguese.wikitext.functions import magic_word
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.names import definition_key, template_name
from gportuguese.wikitext.preprocessor import Nodes, parse
from gportuguese.wikitext.templates import lookup

Kind = Literal["words", "box", "lua"]

# Boxes, navigation, maintenance and notes have these shapes. Each alternative begins with a literal.
_BOX = re.compile(
    r"\{\||__[A-Z]+__|<(?i:table|div|gallery|references)\b"
    r"|<(?i:\w{1,20}\s[^<>]{0,400}?(?:display:\s*none|class\s*=\s*[\"']?[^\"'<>]{0,200}\b(?:navbox|infobox|ambox|asbox"
    r"|tmbox|mbox|metadata|hatnote|dablink|rellink|noprint|stub|reflist|reference|citation|error"
    r"|sistersitebox|navigation|toccolours|geo|coordinates)\b))"
)
_HATNOTE = re.compile(r"\s*:+\s*(?:''|<(?:i|em|small)\b)")
_TABLE_MARKS = frozenset(("{|", "|}", "|-", "||", "!!", "|", "!", "|+"))
_OWN_CATEGORY = re.compile(
    r"\[\[[^\[\]|:]+:[^\[\]]*(?:info-?box|info-?caixa|navbox|navega|navigatio|mainten|manuten|cleanup|"
    r"esboço|stub|\bavisos?\b|bandeau|avvisi|mantenimiento|wartung|hatnote|interne? link|citation needed)",
    re.IGNORECASE,
)
_LUA = re.compile(r"\{\{\s*(?:safesubst:)?\s*#invoke:[^{}]*\}\}", re.IGNORECASE)
_MAX_NAME = 255  # MediaWiki's limit for titles
_CACHED_NAMES, _CACHED_CHARS = 10_000, 1_000_000  # of parsed definitions


def kind_of(body: str, whole: str) -> Kind:
    """The kind of a template, from its transcluded `body` and its whole text.

    >>> kind_of('{| class="infobox"', ""), kind_of("{{{1}}} km", ""), kind_of("{{#invoke:Coord|x}}", "")
    ('box', 'words', 'lua')
    """
    if body.strip() in _TABLE_MARKS:
        return "words"
    if _LUA.fullmatch(body.strip()):
        return "lua"
    own_text = whole.replace(body, "") if body in whole else whole
    is_box = body.lstrip().startswith(("{|", "<table", "<div")) or _OWN_CATEGORY.search(own_text)
    return "box" if is_box else "words"


def is_box(text: str) -> bool:
    """Whether an expanded template is a box, navigation, maintenance or a note.

    >>> is_box('<span class="hatnote">Ver</span>'), is_box("Lisboa<ref>x</ref>"), is_box("{|")
    (True, False, False)
    """
    if text.strip() in _TABLE_MARKS:
        return False
    return bool(_BOX.search(text) or _HATNOTE.match(text))


@dataclass(frozen=True)
class Definition:
    """A template, after redirects."""

    name: str
    kind: Kind
    nodes: Nodes


class Templates:
    """The template definitions of one dump, and the tables of its language.

    `fetch(name)` returns name, kind and body of a template, redirects followed, or None.
    """

    def __init__(
        self, fetch: Callable[[str], tuple[str, Kind, str] | None], language: Language
    ) -> None:
        self.fetch, self.language = fetch, language
        self._known: dict[str, Definition | str | None] = {}
        self._known_chars = 0

    def find(self, title: str) -> Definition | str | None:
        """A definition; a name if the tables have words for the template; None if neither knows it."""
        if len(title) > _MAX_NAME:
            return None
        if title not in self._known:
            if len(self._known) >= _CACHED_NAMES or self._known_chars >= _CACHED_CHARS:
                self._known.clear()
                self._known_chars = 0
            self._known[title] = self._find(title)
        return self._known[title]

    def _find(self, title: str) -> Definition | str | None:
        title = template_name(title, self.language.template_prefixes)
        if self._in_tables(title):
            return title
        if self.language.leaves_nothing(title):
            return Definition(title, "box", [])
        found = self.fetch(definition_key(title))
        if found is None:
            return None
        name, kind, body = found
        if self._in_tables(name):
            return name
        self._known_chars += len(body)
        return Definition(name, kind, parse(body) if kind == "words" else [])

    def is_skipped(self, title: str) -> bool:
        """Whether a call of this name on a page leaves nothing, or cannot be expanded."""
        found = self.find(title)
        if isinstance(found, str) or magic_word(title.strip(), "") is not None:
            return False
        return found is None or found.kind != "words"

    def _in_tables(self, name: str) -> bool:
        return ":" not in name and lookup(name, self.language)[0] is not None
