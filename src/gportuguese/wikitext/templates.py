"""The words that a template leaves in the running text, by the tables of a language."""

from __future__ import annotations

import re

from gportuguese.wikitext.languages import Language

_FIELD = re.compile(r"\{(?:(number|month):)?([^{}]*)\}")
_NUMBER = re.compile(r"([-+−]?)(\d{1,30})(?:[.](\d+))?")
_NAME = re.compile(r"[^|{}\[\]<>]+(?=[|}\n])")
_NAME_OF_ARGUMENT = re.compile(r"[\w -]{1,40}")


def template_words(inner: str, language: Language) -> str:
    """What `{{inner}}` leaves in the text: the words its table entry says, or nothing.

    >>> from gportuguese.wikitext import language_of
    >>> template_words("dni|8|12|1977|lang=br", language_of("pt"))
    '8 de dezembro de 1977'
    >>> template_words("Info/Cidade|nome=Lisboa", language_of("pt"))
    ''
    """
    name, _, rest = inner.partition("|")
    name = name.strip().replace("_", " ").lower()
    arguments = rest.split("|") if rest else []
    function, colon, first = name.partition(":")
    if colon:  # {{formatnum:1234567}}: a parser function takes its first argument after a colon
        name, arguments = function, [first, *arguments]
    pattern = language.words.get(name)
    if pattern is None:
        for prefix, each in language.word_prefixes:
            if name.startswith(prefix):
                pattern = each
                break
        else:
            return ""
    if "{" not in pattern:
        return pattern
    values = _values(arguments)

    def fill(match: re.Match[str]) -> str:
        return _written(match[1], _first(values, match[2]), language)

    return _FIELD.sub(fill, pattern).strip()


def leaves_words(head: str, language: Language) -> bool:
    """Whether the template that begins with `head` may leave words in the text.

    >>> from gportuguese.wikitext import language_of
    >>> leaves_words("Info/Cidade\\n|nome=", language_of("pt"))
    False
    """
    name = _NAME.match(head)
    if name is None or ":" in head[: name.end()]:
        return True
    key = name[0].strip().replace("_", " ").lower()
    return key in language.words or key.startswith(tuple(p for p, _ in language.word_prefixes))


def _values(arguments: list[str]) -> dict[str, str]:
    """Arguments by name; those without one by their place, from "1"."""
    values: dict[str, str] = {}
    place = 0
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and _NAME_OF_ARGUMENT.fullmatch(name := name.strip()):
            values[name.lower()] = value.strip()
        else:
            place += 1
            values[str(place)] = argument.strip()
    return values


def _first(values: dict[str, str], names: str) -> str:
    return next((values[name] for name in names.split("|") if values.get(name)), "")


def _written(kind: str | None, value: str, language: Language) -> str:
    if kind == "number":
        return write_number(value, language)
    if kind == "month" and value.isdigit() and 1 <= int(value) <= 12:
        return language.months[int(value) - 1]
    return value


def write_number(value: str, language: Language) -> str:
    """A number as the language writes it; anything else unchanged.

    >>> from gportuguese.wikitext import language_of
    >>> write_number("1234567.5", language_of("pt"))
    '1 234 567,5'
    """
    parts = _NUMBER.fullmatch(value.strip())
    if parts is None:
        return value
    sign, whole, fraction = parts.groups()
    grouped = f"{int(whole):,}".replace(",", language.thousands) if len(whole) > 3 else whole
    return sign + grouped + (language.decimal + fraction if fraction else "")
