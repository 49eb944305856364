"""What cleaning left or tore out, counted by patterns: the measure of the corpus stage.

A pattern sees marks and punctuation. It does not see a word that is missing where the sentence still
reads well, a paragraph or heading that was dropped, words that no reader is shown, or a wrong number.
`scripts/bench_corpus.py` looks for those in text that other software rendered.
"""

from __future__ import annotations

import functools
import re

from gportuguese.wikitext.languages import Language

# Each alternative begins with a literal, so that the search skips at C speed over everything else.
LEFTOVER = re.compile(
    r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|</?[a-zA-Z][^<>\n]{0,80}>|<!--|-->|'''?|\n[|!*#=]"
    r"|&(?:[a-z]{2,8}|#\d{1,6});|__[A-Z]{3,}__|_(?:(?<=formula_)|(?<=codice_))\d"
    r"|\|[^\W_]{1,20}(?: [^\W_]{1,20})?=|\|(?:(?<=thumb\|)|(?<=upright\|)|(?<=left\|)|(?<=right\|)"
    r"|(?<=px\|)|(?<=mini\|)|(?<=miniatura\|)|(?<=esquerda\|)|(?<=direita\|)|(?<=izquierda\|)"
    r"|(?<=vignette\|)|(?<=hochkant\|))"
)
"""Markup, and the bars of captions."""
_HANGING = (
    r"[,;.)](?<=[ \n(,;].)"  # few pass, so that the rest costs nothing
    r"(?:(?<=[ \n(,],)|(?<=[\n(];)|(?<=[ \n(,;]\))|(?<=[ \n,;]\.)(?![\w.(]))"
)
_EMPTY = r"\((?=[ :])|'(?<= ')(?=[\s,.;)])|«(?= ?»)"
HOLE = re.compile(f"{_HANGING}|{_EMPTY}|  ")
"""Punctuation that something removed left hanging: "(,", ",,", " .", a line that begins with ","."""
FAULT = re.compile(f"{LEFTOVER.pattern}|{HOLE.pattern}")
# `HOLE` and the words of a language in three searches: one for all would stop at every space.
_MARKS = re.compile(f"{LEFTOVER.pattern}|{_EMPTY}")


def count_faults(text: str, language: Language) -> tuple[int, int]:
    """Leftovers, and holes: words that need another after them count too, as in "nascido na, em".

    >>> from gportuguese.wikitext import language_of
    >>> count_faults("Nascido na, em 1900, e {{x}} .", language_of("pt"))
    (2, 2)
    """
    marks = _MARKS.findall(text)
    empty = sum(mark in ("(", "'", "«") for mark in marks)
    holes = len(_hanging(language.dangling).findall(text)) + text.count("  ")
    return len(marks) - empty, empty + holes


@functools.cache
def _hanging(dangling: str) -> re.Pattern[str]:
    return re.compile(f"{_HANGING}|[,;.)](?:{dangling})(?!\\w)" if dangling else _HANGING)
