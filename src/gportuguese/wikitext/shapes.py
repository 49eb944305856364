"""What a template is by its shape: words, a box that leaves nothing, or a call of a Lua module."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["words", "box", "lua"]

# Boxes, navigation, maintenance and notes, by their shape. Each alternative begins with a literal.
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


def kind_of(body: str, whole: str) -> Kind:
    """What a template is by its transcluded `body` and its whole text.

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
    """Whether what a template gave is a box, navigation, maintenance or a note.

    >>> is_box('<span class="hatnote">Ver</span>'), is_box("Lisboa<ref>x</ref>"), is_box("{|")
    (True, False, False)
    """
    if text.strip() in _TABLE_MARKS:
        return False
    return bool(_BOX.search(text) or _HATNOTE.match(text))
