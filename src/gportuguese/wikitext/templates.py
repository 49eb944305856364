"""The words that a template call leaves in the text, by the tables of a language."""

from __future__ import annotations

import re

from gportuguese.wikitext.fields import fill
from gportuguese.wikitext.functions import ERROR, FUNCTIONS, TextArguments, magic_word
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.marks import HOLE
from gportuguese.wikitext.names import template_name

_NAME = re.compile(r"[^|{}\[\]<>]+(?=[|}\n])")
_NUMBERS = ("formatnum", "#expr")
_NOWIKI = re.compile(r"</?nowiki>")
_MAX_LOOKUPS, _MAX_NAME = 20_000, 100  # kept: a wiki has more names, but few of them are common


def template_words(inner: str, language: Language, title: str = "") -> str:
    """The words that `{{inner}}` leaves: a function's result, what the tables say, or nothing.

    >>> from gportuguese.wikitext import language_of
    >>> template_words("dni|8|12|1977|lang=br", language_of("pt"))
    '8 de dezembro de 1977'
    >>> template_words("Info/Cidade|nome=Lisboa", language_of("pt"))
    ''
    """
    head, bar, rest = inner.partition("|")
    pattern, ending, name = lookup(head, language)
    if pattern is None:
        return _function_words(head, rest.split("|") if bar else [], language, title)
    if "{" not in pattern:
        return pattern
    return fill(pattern, rest.split("|") if bar else [], language, name, ending).strip(" ")


def leaves_words(head: str, language: Language) -> bool:
    """Whether the template call that begins with `head` may leave words in the text.

    >>> from gportuguese.wikitext import language_of
    >>> leaves_words("Info/Cidade\\n|nome=", language_of("pt"))
    False
    """
    name = _NAME.match(head)
    if name is None or ":" in name[0]:
        return True
    return lookup(name[0], language)[0] is not None


def is_decided(name: str, language: Language) -> bool:
    """Whether the tables say what a template leaves: words, or nothing.

    >>> from gportuguese.wikitext import language_of
    >>> is_decided("séc", language_of("pt")), is_decided("Novidade", language_of("pt"))
    (True, False)
    """
    return lookup(name, language)[0] is not None or language.leaves_nothing(name)


def lookup(head: str, language: Language) -> tuple[str | None, str, str]:
    """Pattern, ending and name of the template that a call names.

    The pattern is None if no table has words for it. The ending is what follows the beginning of
    the name, where the table holds only that: `de` for `lang-de`.
    """
    found = language.lookups.get(head)
    if found is None:
        name = template_name(head, language.template_prefixes)
        found = (*_pattern_of(name, language), name)
        if len(language.lookups) >= _MAX_LOOKUPS:
            language.lookups.clear()
        if len(head) <= _MAX_NAME:
            language.lookups[head] = found
    return found


def _pattern_of(name: str, language: Language) -> tuple[str | None, str]:
    """Pattern and ending. {{PER}} is a country, {{per}} is not."""
    key = name.lower()
    if name in language.countries and name not in language.words:
        # the German {{FRA|Ziel=Lyon}} shows the flag and the city
        return f"{{ziel|'{language.countries[name]}'}}", ""
    for entry in (name, key):
        if entry in language.words:
            return language.words[entry], ""
    for prefix, each in language.word_prefixes:
        if key.startswith(prefix):
            return each, key[len(prefix) :]
    return None, ""


def _function_words(head: str, arguments: list[str], language: Language, title: str) -> str:
    """The words of a parser function or magic word, its arguments already read."""
    function, colon, first = head.partition(":")
    if not colon:
        return magic_word(head.strip(), title) or ""
    if (known := FUNCTIONS.get(function.strip().lower())) is None:
        return ""
    words = known(TextArguments([first, *arguments], language)) or ""
    if ERROR.search(words) or (not words and function.lower() in _NUMBERS):
        return HOLE  # a number that the dump does not have
    return _NOWIKI.sub("", words)
