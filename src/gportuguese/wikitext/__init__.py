"""Turns wikitext into running text. Pure functions; names are data, in one YAML table per language."""

from __future__ import annotations

import re
from typing import NamedTuple

from gportuguese.wikitext.faults import FAULT, HOLE, LEFTOVER, count_faults
from gportuguese.wikitext.languages import Language, hash_tables, language_of
from gportuguese.wikitext.layout import lay_out
from gportuguese.wikitext.parser import strip_markup

__all__ = [
    "FAULT",
    "HOLE",
    "LEFTOVER",
    "Language",
    "Page",
    "count_faults",
    "hash_tables",
    "language_of",
    "read_wikitext",
    "wikitext_to_text",
]

_SIGNS = ("[[", "]]", "{{", "}}", "<")
_MARKUP = re.compile(r"\[\[|\]\]|\{\{|\}\}|</?[a-zA-Z]|<!--")
_MAX_MARKS = 50  # a page with more is no prose, and wikiextractor takes time quadratic in them
_BRACKETS = re.compile(r"[\[\]{}]+")  # also single ones, which may join later
_LEFT = re.compile(r"<(?:/?ref\b>?|!--)|\[{2,}|\]{2,}|\{{2,}|\}{2,}")


class Page(NamedTuple):
    """The text of a page."""

    text: str
    """One line per paragraph, list item or heading."""
    dropped_sentences: int
    """Sentences left out because a formula in them cannot be written as text."""


def wikitext_to_text(wikitext: str, title: str, language: Language) -> str:
    """The running text of a page, one line per paragraph, list item or heading.

    >>> wikitext_to_text("Um ''fado'' é [[música]].", "Fado", language_of("pt"))
    'Um fado é música.'
    """
    return read_wikitext(wikitext, title, language).text


def read_wikitext(wikitext: str, title: str, language: Language) -> Page:
    """The running text of a page, and the number of sentences left out.

    wikiextractor's cleaner finishes the lines in which broken or escaped markup is left; nearly every
    page has none.
    """
    text, num_dropped = lay_out(strip_markup(wikitext, language, title), language)
    if any(sign in text for sign in _SIGNS) and (num_marks := len(_MARKUP.findall(text))):
        lines = text.split("\n")
        is_prose = num_marks <= _MAX_MARKS
        lines = [_finish(line, title, is_prose) if _MARKUP.search(line) else line for line in lines]
        # each line is a paragraph; laying them out may join signs of lines that had no markup
        text = _LEFT.sub("", lay_out("\n\n".join(lines), language)[0])
        if _LEFT.search(text):  # one inside another
            text = re.sub(r"[<\[\]{}]", "", text)
    return Page(text, num_dropped)


def _finish(line: str, title: str, is_prose: bool) -> str:
    """The line without markup."""
    if is_prose:
        from wikiextractor.extract import Extractor, clean

        line = clean(Extractor(0, "", "", title, []), line, html_safe=False)
        # it makes half a surrogate pair of &#xD800;, which UTF-8 cannot encode
        line = str(line).encode("utf-8", "replace").decode()
    return _BRACKETS.sub("", line)
