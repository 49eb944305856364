"""The words that links, superscripts and subscripts show."""

from __future__ import annotations

import html
import re

from gportuguese.wikitext.languages import Language

_ORDINALS = {"o": "º", "a": "ª", "os": "ºs", "as": "ªs"}
_QUOTES = re.compile(r"'{2,}")
_NOTE = re.compile(r"\[[^\[\]]*\]")
# a number, a letter, or both (2n); (n) has parentheses already
_POWER = re.compile(r"[-+−–]?(?:\d+(?:[.,/]\d+)*[^\W\d_]*|[^\W\d_])|\([^()]*\)")
_EXPRESSION = re.compile(r"[-+−–]?[\w.,^]+(?:\s*[-+−–*×·/=]\s*[\w.,^]+)+")
_CHARGE = re.compile(r"\d*[-+−–]")
_WORD = re.compile(r"[^\W\d_]{2,}")
_ENDINGS = frozenset(("e", "ª", "º", "°"))
_SIGNS = frozenset(("", "-", "+", "−", "–"))
_INTERLANGUAGE = re.compile(r"(?:[a-z]{2,3}(?:-[a-z]{1,10}){0,2}|simple)")
_PROJECTS = frozenset((
    "w", "wikt", "wiktionary", "s", "wikisource", "b", "wikibooks", "q", "wikiquote", "n",
    "wikinews", "v", "voy", "wikivoyage", "m", "meta", "d", "wikidata", "c", "commons", "mw",
    "species", "wikispecies",
))  # fmt: skip
_IMAGE_OPTION = re.compile(
    r"(?:^|\|)\s*(?:thumb|thumbnail|frame|frameless|\d{1,4}(?:x\d{1,4})?\s*px)\s*(?:\||$)"
)
_PARENTHESIS = re.compile(r"\s*\([^()]*\)$")


def link_words(target: str, label: str | None, language: Language) -> str:
    """The words that `[[target|label]]` shows; `label` is None without a bar.

    >>> from gportuguese.wikitext import language_of
    >>> link_words("Paraná (rio)", "", language_of("pt"))
    'Paraná'
    """
    visible = target.startswith(":")
    target = target.lstrip(":").strip()
    prefix, colon, rest = target.partition(":")
    if colon:
        prefix = prefix.strip()
        if not visible and prefix.lower() in language.hidden_prefixes:
            return ""
        if prefix.lower() in language.media_prefixes:
            return label or ""
        if label and "|" in label and _IMAGE_OPTION.search(label):
            return ""  # a file, in a namespace that no table names
        is_project = prefix in _PROJECTS
        if is_project or (visible and _INTERLANGUAGE.fullmatch(prefix)):
            target = rest.lstrip(":").strip()
        elif _INTERLANGUAGE.fullmatch(prefix) and not label:
            return ""  # an interlanguage link is shown beside the text
    if label is None:
        return target
    if label.strip():
        return label
    # the pipe trick: [[Paraná (rio)|]] shows "Paraná"
    return _PARENTHESIS.sub("", target.rpartition(":")[2])


def raised_words(tag: str, raised: str, before: list[str]) -> str:
    """The text of <sup> or <sub>: 10^-3, 2^(n+1), nº, H2O; nothing for an editor's note.

    `before` holds the text before it.

    >>> raised_words("<sup>", "n+1", ["2"]), raised_words("<sup>", "[quem?]", ["disse"])
    ('^(n+1)', '')
    """
    content = _QUOTES.sub("", raised).strip()
    if "&" in content:
        content = html.unescape(content).strip()
    if _NOTE.fullmatch(content):
        return ""
    if tag.startswith("<sub"):
        return raised
    base = before[-1].rstrip("'")[-1:] if before else ""
    if content in _ORDINALS:
        return _ORDINALS[content]
    if base.isdigit():  # losing an exponent would change the number
        if content in _ENDINGS or _WORD.fullmatch(content) or content in _SIGNS or " " in content:
            return raised  # 1er, 37esimo, NH4+
        return f"^{content}" if _POWER.fullmatch(content) else f"^({content})"
    is_word = content in _ENDINGS or _WORD.fullmatch(content)
    if not (base.isalpha() or base in (")", "]")) or is_word:
        return raised  # isotopes, and words: M<sup>lle</sup>
    if _POWER.fullmatch(content) and not _CHARGE.fullmatch(content):
        return f"^{content}"
    return f"^({content})" if _EXPRESSION.fullmatch(content) else raised
