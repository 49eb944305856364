"""The words that a template leaves in the running text, by the tables of a language."""

from __future__ import annotations

import re

from gportuguese.wikitext.languages import Language

_FIELD = re.compile(r"\{(?:([a-z]+):)?([^{}]*)\}")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"([-+−]?)(\d{1,30})(?:[.](\d+))?(\s.*)?", re.DOTALL)
_NAME = re.compile(r"[^|{}\[\]<>]+(?=[|}\n])")
_RANGES = {"-": "–", "–": "–", "x": " × "} | {
    w: f" {w} " for w in ["to", "and", "or", "by", "a", "e", "ou"]
}
_NAME_OF_ARGUMENT = re.compile(r"[\w -]{1,40}")
_ROMAN = tuple(zip(
    (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
    ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
    strict=True,
))  # fmt: skip
# what the last argument of {{USS|Missouri|BB-63|2}} shows
_SHIP_FORMATS = {"1": "{id}", "2": "{name}", "3": "{name} ({id})", "4": "{prefix} {id}",
                 "5": "{prefix} {id}", "6": "{prefix} {name}"}  # fmt: skip


def template_words(inner: str, language: Language, title: str = "") -> str:
    """What `{{inner}}` leaves in the text: the words its table entry says, or nothing.

    >>> from gportuguese.wikitext import language_of
    >>> template_words("dni|8|12|1977|lang=br", language_of("pt"))
    '8 de dezembro de 1977'
    >>> template_words("Info/Cidade|nome=Lisboa", language_of("pt"))
    ''
    """
    name, _, rest = inner.partition("|")
    name = template_name(name, language)
    arguments = rest.split("|") if rest else []
    function, colon, first = name.partition(":")
    if colon:  # {{formatnum:1234567}}: a parser function takes its first argument after a colon
        name, arguments = function, [first, *arguments]
        if name in _CONDITIONS:
            return _chosen(name, [argument.strip() for argument in arguments])
    found = _pattern_of(name, language)
    if found is None or "{" not in found[0]:
        return found[0] if found else ""
    pattern, ending = found
    values = _values(arguments)
    return _Filling(values, language, name, ending, title).fill(pattern).strip(" ")


def leaves_words(head: str, language: Language) -> bool:
    """Whether the template that begins with `head` may leave words in the text.

    >>> from gportuguese.wikitext import language_of
    >>> leaves_words("Info/Cidade\\n|nome=", language_of("pt"))
    False
    """
    name = _NAME.match(head)
    if name is None or ":" in head[: name.end()]:
        return True
    return _pattern_of(template_name(name[0], language), language) is not None


def is_decided(name: str, language: Language) -> bool:
    """Whether the tables say what a template leaves: words, or nothing.

    >>> from gportuguese.wikitext import language_of
    >>> is_decided("séc", language_of("pt")), is_decided("Novidade", language_of("pt"))
    (True, False)
    """
    return _pattern_of(name, language) is not None or language.leaves_nothing(name)


def template_name(name: str, language: Language) -> str:
    """The name by which the tables know a template.

    >>> from gportuguese.wikitext import language_of
    >>> template_name(" Predefinição:Info_livro\\n", language_of("pt"))
    'Info livro'
    """
    name = name.strip().replace("_", " ")
    prefix, colon, rest = name.partition(":")
    if colon and prefix.strip().lower() in language.template_prefixes:
        return rest.strip()
    return name


def _pattern_of(name: str, language: Language) -> tuple[str, str] | None:
    """What the tables say of a template, and how its name ends where they name only its beginning.

    {{PER}} is a country, {{per}} is not.
    """
    words, key = language.words, name.lower()
    pattern = words.get(name) or words.get(key)
    if pattern is not None:
        return pattern, ""
    if name in language.countries:
        return language.countries[name], ""
    return next(
        (
            (each, key[len(prefix) :])
            for prefix, each in language.word_prefixes
            if key.startswith(prefix)
        ),
        None,
    )


class _Filling:
    """The arguments of one call, put into the fields of a pattern."""

    def __init__(
        self, values: dict[str, str], language: Language, name: str, ending: str, title: str
    ) -> None:
        self.values, self.language = values, language
        self.name, self.ending, self.title = name, ending, title

    def fill(self, pattern: str) -> str:
        """The pattern with its fields; a part in brackets goes if none of its fields has a value."""
        text = ""
        for place, part in enumerate(_GROUP.split(pattern)):
            words, has_value = self._fill_part(part)
            if has_value or not place % 2:
                text += words
        return text

    def _fill_part(self, pattern: str) -> tuple[str, bool]:
        """The words, and whether any field had a value; a word between two fields needs both."""
        text, *parts = _FIELD.split(pattern)
        gap, has_value = "", False
        for kind, names, after in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
            value = self._value(kind, names)
            if value or not gap.strip().isalpha():
                text += value if gap.strip().isalpha() and not has_value else gap + value
            has_value = has_value or bool(value)
            gap = after
        return text + gap, has_value

    def _value(self, kind: str | None, names: str) -> str:
        if kind == "measure":
            return _measure(self.values, int(names), self.language)
        if kind == "all":
            return names.join(self._all())
        if kind == "fraction":
            return _fraction(self._all())
        if kind == "ship":
            return _ship([names, *self._all()] if names else self._all())
        if kind == "page":
            return self.title
        if kind == "called":
            return self.name
        value = self.ending if names == "*" else _first(self.values, names)
        if kind == "number":
            return write_number(value, self.language)
        if kind == "month" and value.isdigit() and 1 <= int(value) <= 12:
            return self.language.months[int(value) - 1]
        if kind == "language":
            return self.language.tongues.get(value.lower(), "")
        if kind == "country":
            return self.language.countries.get(value, value)
        if kind == "roman":
            return _roman(value)
        if kind in ("lower", "upper"):
            return value.lower() if kind == "lower" else value.upper()
        return value

    def _all(self) -> list[str]:
        """The arguments without a name, in their order, but for empty ones."""
        return [value for name, value in self.values.items() if name.isdigit() and value]


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


def _fraction(numbers: list[str]) -> str:
    """1/2 of one number, 1/2 of two, 1 3/4 of three."""
    if len(numbers) == 1:
        return f"1/{numbers[0]}"
    *whole, above, below = numbers[:3] if len(numbers) > 1 else ("", "")
    return " ".join([*whole, f"{above}/{below}".strip("/")])


def _ship(words: list[str]) -> str:
    """Prefix, name and number of a ship, as much of them as the format asks for."""
    prefix, name, number, form = [*words, "", "", "", ""][:4]
    if number in _SHIP_FORMATS and not form:
        number, form = "", number
    usual = "{prefix} {name} ({id})" if number else "{prefix} {name}"
    return _SHIP_FORMATS.get(form, usual).format(prefix=prefix, name=name, id=number)


def _roman(value: str) -> str:
    """A number in Roman numerals; anything else unchanged."""
    if not value.isdecimal() or not 0 < int(value) < 4000:
        return value
    number, text = int(value), ""
    for worth, letters in _ROMAN:
        text += letters * (number // worth)
        number %= worth
    return text


_CONDITIONS = frozenset(("#if", "#ifeq", "#switch"))


def _chosen(name: str, arguments: list[str]) -> str:
    """What a condition of a page shows: `#if`, `#ifeq` or `#switch`, its arguments already read."""
    subject, *rest = arguments
    if name == "#if":
        return (*rest, "", "")[0 if subject else 1]
    if name == "#ifeq":
        return (*rest, "", "", "")[1 if rest and subject == rest[0] else 2]
    default, falls_through = "", False
    for place, case in enumerate(rest):
        key, equals, value = (part.strip() for part in case.partition("="))
        if not equals:  # the last is the default, others share the value of the next
            default = key if place == len(rest) - 1 else default
        falls_through = falls_through or key == subject
        if equals and falls_through:
            return value
        if equals and key == "#default":
            default = value
    return default


def write_number(value: str, language: Language) -> str:
    """A number as the language writes it, and what follows it; anything else unchanged.

    >>> from gportuguese.wikitext import language_of
    >>> write_number("1234567.5", language_of("pt"))
    '1 234 567,5'
    """
    parts = _NUMBER.fullmatch(value.strip())
    if parts is None:
        return value
    sign, whole, fraction, rest = parts.groups("")
    grouped = f"{int(whole):,}".replace(",", language.thousands) if len(whole) > 3 else whole
    return sign + grouped + (language.decimal + fraction if fraction else "") + rest
