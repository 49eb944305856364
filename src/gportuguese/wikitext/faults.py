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
_APOSTROPHE = r" '(?=[\s,.;)])"
_EMPTY = ("( ", "(:", "«»", "« »", "  ")
HOLE = re.compile("|".join([_HANGING, _APOSTROPHE, *map(re.escape, _EMPTY)]))
"""Punctuation that something removed left hanging: "(,", ",,", " .", a line that begins with ","."""
FAULT = re.compile(f"{LEFTOVER.pattern}|{HOLE.pattern}")
_LONE_APOSTROPHE = re.compile(_APOSTROPHE)


def count_faults(text: str, language: Language) -> tuple[int, int]:
    """Leftovers, and holes: words that need another after them count too, as in "nascido na, em".

    >>> from gportuguese.wikitext import language_of
    >>> count_faults("Nascido na, em 1900, e {{x}} .", language_of("pt"))
    (2, 2)
    """
    holes = len(_hanging(language.dangling).findall(text)) + sum(map(text.count, _EMPTY))
    return len(LEFTOVER.findall(text)), holes + len(_LONE_APOSTROPHE.findall(text))


@functools.cache
def _hanging(dangling: str) -> re.Pattern[str]:
    """One search, that of `HOLE` would stop at every space."""
    return re.compile(f"{_HANGING}|[,;.)](?:{dangling})(?!\\w)" if dangling else _HANGING)
