"""Wikitext -> running text. Pure functions; the tables of names are data, one YAML a language."""

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
_MAX_MARKS = 50  # beyond that it is no text, and wikiextractor takes time quadratic in them
_BRACKETS = re.compile(r"[\[\]{}]+")  # single ones too: what is left of two may meet
_OPENERS = re.compile(r"<(?:/?ref\b>?|!--)")


class Page(NamedTuple):
    """What is left of a page."""

    text: str
    """A line a paragraph, list item or heading."""
    dropped_sentences: int
    """Left out because a formula in them is no text."""


def wikitext_to_text(wikitext: str, title: str, language: Language) -> str:
    """The running text of a page: a line a paragraph, list item or heading.

    >>> wikitext_to_text("Um ''fado'' é [[música]].", "Fado", language_of("pt"))
    'Um fado é música.'
    """
    return read_wikitext(wikitext, title, language).text


def read_wikitext(wikitext: str, title: str, language: Language) -> Page:
    """The running text of a page, and what is missing in it.

    What the parser could not make sense of (broken or escaped markup) goes through wikiextractor's
    cleaner; a page without any left, nearly every one, is what that cleaner would leave alone.
    """
    text, num_dropped = lay_out(strip_markup(wikitext, language, title), language)
    if any(sign in text for sign in _SIGNS) and (marks := len(_MARKUP.findall(text))):
        if marks <= _MAX_MARKS:
            text = _finish(text, title)
        # last of all: laying out drops marks too, between which half an opener may stand
        text = _BRACKETS.sub("", text).replace("\n", "\n\n")  # each line is a paragraph by now
        text = _OPENERS.sub("", lay_out(text, language)[0])
        if _OPENERS.search(text):  # one inside another: no text has that
            text = text.replace("<", "")
    return Page(text, num_dropped)


def _finish(text: str, title: str) -> str:
    from wikiextractor.extract import Extractor, clean

    text = clean(Extractor(0, "", "", title, []), text, html_safe=False)
    # it makes half a surrogate pair of &#xD800;, which no UTF-8 can hold
    return str(text).encode("utf-8", "replace").decode()
