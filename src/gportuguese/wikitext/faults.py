"""Counts leftover markup and holes in cleaned text: the corpus stage's own measure.

Patterns see marks and punctuation. They do not see a missing word where the sentence still reads well, a
dropped paragraph or heading, words that readers are not shown, or a wrong number. For those,
`scripts/bench_corpus.py` compares with rendered pages.
"""

from __future__ import annotations

import functools
import re

from gportuguese.wikitext.languages import Language

# Each alternative begins with a literal, so that the search skips other text at C speed.
LEFTOVER = re.compile(
    r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|</?[a-zA-Z][^<>\n]{0,80}>|<!--|-->|'''?|\n[|!*#=]"
    r"|&(?:[a-z]{2,8}|#\d{1,6});|__[A-Z]{3,}__|_(?:(?<=formula_)|(?<=codice_))\d"
    r"|\|[^\W_]{1,20}(?: [^\W_]{1,20})?=|\|(?:(?<=thumb\|)|(?<=upright\|)|(?<=left\|)|(?<=right\|)"
    r"|(?<=px\|)|(?<=mini\|)|(?<=miniatura\|)|(?<=esquerda\|)|(?<=direita\|)|(?<=izquierda\|)"
    r"|(?<=vignette\|)|(?<=hochkant\|))"
)
"""Markup, and the bars of captions."""
_HANGING = (
    r"[,;.)](?<=[ \n(,;].)"  # a first test that few pass
    r"(?:(?<=[ \n(,],)|(?<=[\n(];)|(?<=[ \n(,;]\))|(?<=[ \n,;]\.)(?![\w.(]))"
)
_EMPTY = r"\((?=[ :])|'(?<= ')(?=[\s,.;)])|«(?= ?»)"
HOLE = re.compile(f"{_HANGING}|{_EMPTY}|  ")
"""Punctuation left hanging by a removal: "(,", ",,", " .", a line that begins with ","."""
FAULT = re.compile(f"{LEFTOVER.pattern}|{HOLE.pattern}")
# Three searches instead of one pattern, which would stop at every space.
_MARKS = re.compile(f"{LEFTOVER.pattern}|{_EMPTY}")


def count_faults(text: str, language: Language) -> tuple[int, int]:
    """The number of leftovers and of holes. "Nascido na, em" is a hole too: "na" needs a noun.

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
