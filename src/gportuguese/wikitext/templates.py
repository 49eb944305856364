"""The words that a template leaves in the running text, by the tables of a language."""

from __future__ import annotations

import re

from gportuguese.wikitext.languages import Language

_FIELD = re.compile(r"\{(?:(number|month|measure):)?([^{}]*)\}")
_NUMBER = re.compile(r"([-+−]?)(\d{1,30})(?:[.](\d+))?")
_NAME = re.compile(r"[^|{}\[\]<>]+(?=[|}\n])")
_RANGES = {"-": "–", "–": "–", "x": " × "} | {
    w: f" {w} " for w in ["to", "and", "or", "by", "a", "e", "ou"]
}
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
    name = name.strip().replace("_", " ")
    arguments = rest.split("|") if rest else []
    function, colon, first = name.partition(":")
    if colon:  # {{formatnum:1234567}}: a parser function takes its first argument after a colon
        name, arguments = function, [first, *arguments]
    pattern = _pattern_of(name, language)
    if pattern is None or "{" not in pattern:
        return pattern or ""
    return _filled(pattern, _values(arguments), language).strip()


def leaves_words(head: str, language: Language) -> bool:
    """Whether the template that begins with `head` may leave words in the text.

    >>> from gportuguese.wikitext import language_of
    >>> leaves_words("Info/Cidade\\n|nome=", language_of("pt"))
    False
    """
    name = _NAME.match(head)
    if name is None or ":" in head[: name.end()]:
        return True
    return _pattern_of(name[0].strip().replace("_", " "), language) is not None


def _pattern_of(name: str, language: Language) -> str | None:
    """What the tables say of a template: {{PER}} is a country, {{per}} is not."""
    words, key = language.words, name.lower()
    pattern = words.get(name) or words.get(key)
    if pattern is not None:
        return pattern
    return next((each for prefix, each in language.word_prefixes if key.startswith(prefix)), None)


def _filled(pattern: str, values: dict[str, str], language: Language) -> str:
    """The pattern with its fields; a word between two of them, such as `de`, needs both."""
    text, *parts = _FIELD.split(pattern)
    gap, has_words = "", False
    for kind, names, after in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
        if kind == "measure":
            value = _measure(values, int(names), language)
        else:
            value = _written(kind, _first(values, names), language)
        if value or not gap.strip().isalpha():
            text += value if gap.strip().isalpha() and not has_words else gap + value
        has_words = has_words or bool(value)
        gap = after
    return text + gap


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


def _measure(values: dict[str, str], place: int, language: Language) -> str:
    """The number at `place`, or the range that begins there, and its unit: 2, -, 3, km."""
    text = write_number(values.get(str(place), ""), language)
    while mark := _RANGES.get(values.get(str(place + 1), "")):
        text += mark + write_number(values.get(str(place + 2), ""), language)
        place += 2
    return f"{text} {values.get(str(place + 1), '')}"


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
