"""Patterns of the language tables, filled with the arguments of a template call."""

from __future__ import annotations

import re

from gportuguese.wikitext.biography import first_sentence
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.marks import HOLE

_FIELD = re.compile(r"\{(?:([a-z]+):)?([^{}]*)\}")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_RANGES = {"-": "–", "–": "–", "x": " × "} | {
    w: f" {w} " for w in ["to", "and", "or", "by", "a", "e", "ou"]
}
_ARGUMENT_NAME = re.compile(r"[\w -]{1,40}")
_YEAR = re.compile(r"-?\d{3,4}")
_DECIMAL = re.compile(r"[-−+]?\d{1,3}(?:\.\d+)?")
_COMPASS = frozenset("NSEWO")
_COMMA = re.compile(r"(?<=\d),(?=\d)")  # 3743,31 km
_UNIT_POWER = re.compile(r"(?<=[^\W\d_]) (?=[2-9]$)")  # hab./km 2
_ROMAN = tuple(zip(
    (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
    ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
    strict=True,
))  # fmt: skip
# second units, as in 5 ft 11 in
_COMPOUND = frozenset((("ft", "in"), ("lb", "oz"), ("st", "lb"), ("mi", "yd"), ("h", "min")))
# The codes of {{convert}} that no reader sees; the others are units already.
_UNITS = {
    "C": "°C", "F": "°F", "C-change": "°C", "F-change": "°F", "sqft": "sq ft", "ft2": "sq ft",
    "sqmi": "sq mi", "mi2": "sq mi", "sqin": "sq in", "in2": "sq in", "sqyd": "sq yd", "yd2": "sq yd",
    "sqm": "m2", "sqkm": "km2", "cuft": "cu ft", "ft3": "cu ft", "cuin": "cu in", "in3": "cu in",
    "cuyd": "cu yd", "yd3": "cu yd", "lbft": "lb⋅ft", "Nm": "N⋅m", "mpgus": "mpg-US", "mpgimp": "mpg-imp",
    "USgal": "US gal", "impgal": "imp gal", "ST": "short tons", "LT": "long tons", "MT": "metric tons",
}  # fmt: skip
_SCALES = {"3": "thousand", "6": "million", "9": "billion", "12": "trillion"}
_SCALED = re.compile(r"e(3|6|9|12)(\D.*)")  # e6acre
_SCIENTIFIC = re.compile(r"(-?[\d.,]+)e([-+]?\d{1,3})")  # 4.5e6
_IDEOGRAPHS = re.compile(
    r"[\u2e80-\u30ff\u3400-\u9fff]+"
)  # Chinese and Japanese, written without spaces
# by the last argument of {{USS|Missouri|BB-63|2}}
_SHIP_FORMATS = {"1": "{id}", "2": "{name}", "3": "{name} ({id})", "4": "{prefix} {id}",
                 "5": "{prefix} {id}", "6": "{prefix} {name}"}  # fmt: skip


def fill(
    pattern: str, arguments: list[str], language: Language, name: str = "", ending: str = ""
) -> str:
    """The pattern with its fields replaced; docs/languages.md lists the kinds of fields.

    A part in brackets is left out if none of its fields has a value.

    >>> from gportuguese.wikitext import language_of
    >>> fill("[{1} ]{month:2} de {3}", ["", "5", "1900"], language_of("pt"))
    'maio de 1900'
    """
    filling = _Filling(_values(arguments), language, name, ending)
    text = ""
    for place, part in enumerate(_GROUP.split(pattern)):
        words, has_value = filling.fill(part)
        if has_value or not place % 2:
            text += words
    return text


class _Filling:
    """The arguments of one call."""

    def __init__(self, values: dict[str, str], language: Language, name: str, ending: str) -> None:
        self.values, self.language, self.name, self.ending = values, language, name, ending

    def fill(self, pattern: str) -> tuple[str, bool]:
        """The words, and whether any field has a value; a word between two fields needs both."""
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
            return self._measure(int(names))
        if kind == "if":
            condition, _, shown = names.partition("|")
            name, equals, wanted = condition.partition("=")
            inner, colon, rest = shown.partition(":")
            given = self.values.get(name, "")
            if (given != wanted) if equals else not given:
                return ""
            return self._value(inner, rest) if colon else shown
        if kind == "all":
            words = self._positional()
            return ("" if names == " " and _IDEOGRAPHS.fullmatch("".join(words)) else names).join(
                words
            )
        if kind == "date":
            return self._date(*names.split("|"))
        if kind == "coordinates":
            return _coordinates(self.values, names)
        if kind == "article":
            return self._article(names)
        if kind == "age":
            return _age(self._positional())
        if kind == "asof":
            return self._as_of()
        if kind == "biography":
            return first_sentence(self.values)
        if kind == "hole":
            return HOLE
        if kind == "fraction":
            return _fraction(self._positional())
        if kind == "ship":
            words = [value for name, value in self.values.items() if name.isdigit()]
            return _ship([names, *words] if names else words)
        if kind == "called":
            return self.name
        value = self.ending if names == "*" else self._first(names)
        if kind == "number":
            return self.language.write_number(value)
        if kind == "quantity":
            value = _COMMA.sub(".", value, count=1)
            return _UNIT_POWER.sub("^", self.language.write_number(value))
        if kind == "month" and value.isdigit() and 1 <= int(value) <= 12:
            return self.language.months[int(value) - 1]
        if kind == "language":
            return self.language.tongues.get(value.lower(), "")
        if kind == "country":
            return self.language.countries.get(value, value)
        return _roman(value) if kind == "roman" else value

    def _first(self, names: str) -> str:
        """The first argument that has a value; a name in quotes is a constant."""
        for name in names.split("|"):
            if name[:1] == "'":
                return name.strip("'")
            if value := self.values.get(name):
                return value
        return ""

    def _article(self, names: str) -> str:
        """The label of a link to another language's article: `lt`, `label`, or the first argument.

        If the first argument is a language code, it is the first of `names`.
        """
        if label := self._first("lt|label"):
            return label
        first = self.values.get("1", "")
        is_code = first in self.language.tongues and bool(self.values.get("2"))
        return self._first(names) if is_code else first

    def _date(self, first: str, *names: str) -> str:
        """A date from the arguments of these names, or else from those without a name, to its year.

        One argument may hold the whole date. `first` is how the first day of a month is written.
        """
        given = [self.values.get(name, "") for name in names] if names else self._positional()
        words = " ".join(given).split()
        for place, word in enumerate(words):
            if _YEAR.fullmatch(word):
                del words[place + 1 :]
        if len(words) > 1 and words[0].isdecimal():
            if words[1].isdecimal() and 1 <= int(words[1]) <= 12:
                words[1] = self.language.months[int(words[1]) - 1]
            if words[0] in ("1", "01") and words[1].lower() in self.language.months:
                words[0] = first
        return " ".join(words)

    def _positional(self) -> list[str]:
        """The arguments without a name, in order, empty ones left out."""
        return [value for name, value in self.values.items() if name.isdigit() and value]

    def _measure(self, place: int) -> str:
        """The number at `place`, or the range that begins there, and its unit: 2, -, 3, km."""
        values, write = self.values, self._amount
        text = write(values.get(str(place), ""))
        while mark := _RANGES.get(values.get(str(place + 1), "")):
            text += mark + write(values.get(str(place + 2), ""))
            place += 2
        unit, more, second = (values.get(str(place + n), "") for n in (1, 2, 3))
        text = f"{text} {_unit(unit)}"
        return f"{text} {more} {second}" if (unit, second) in _COMPOUND else text

    def _amount(self, value: str) -> str:
        """A number as it is shown: 4.5×10^6 for 4.5e6."""
        if parts := _SCIENTIFIC.fullmatch(value):
            return f"{self.language.write_number(parts[1])}×10^{parts[2]}"
        return self.language.write_number(f"−{value[1:]}" if value[:1] == "-" else value)

    def _as_of(self) -> str:
        """The words of {{as of|2011|8|19|lc=y}}: as of 19 August 2011."""
        values = self.values
        year, month, day = (values.get(place, "") for place in "123")
        if month.isdigit() and 1 <= int(month) <= 12:
            month = self.language.months[int(month) - 1]
        date = " ".join(filter(None, (day.lstrip("0"), month, year)))
        if day and values.get("df", "").upper() == "US":
            date = f"{month} {day.lstrip('0')}, {year}"
        words = "since" if values.get("since") else "as of"
        if not values.get("lc"):
            words = words.capitalize()
        text = values.get("alt") or (date if values.get("bare") else f"{words} {date}")
        return text + values.get("post", "")


def _values(arguments: list[str]) -> dict[str, str]:
    """Arguments by lower-case name; those without a name by place, from "1"."""
    values: dict[str, str] = {}
    place = 0
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and _ARGUMENT_NAME.fullmatch(name := name.strip()):
            values[name.lower()] = value.strip()
        else:
            place += 1
            values[str(place)] = argument.strip()
    return values


def _unit(code: str) -> str:
    """A unit as it is shown: sq ft for sqft, million acres for e6acres."""
    if parts := _SCALED.fullmatch(code):
        return f"{_SCALES[parts[1]]} {_unit(parts[2])}"
    return _UNITS.get(code, code)


def _fraction(numbers: list[str]) -> str:
    """1/2 of one number, 1/2 of two, 1 3/4 of three."""
    if len(numbers) == 1:
        return f"1/{numbers[0]}"
    *whole, above, below = numbers[:3] if len(numbers) > 1 else ("", "")
    return " ".join([*whole, f"{above}/{below}".strip("/")])


def _coordinates(values: dict[str, str], west: str) -> str:
    """Latitude and longitude, as in 47°05′N 9°31′51″E; `west` is the letter for west.

    Nothing if they are shown only beside the page's title, or if they cannot be read.
    """
    if values.get("display", "").lower() in ("title", "t"):
        return ""
    numbers: list[str] = []
    found: list[str] = []
    for value in (value for name, value in values.items() if name.isdigit() and value):
        if value in _COMPASS and 0 < len(numbers) < 4:
            degrees, *smaller = numbers
            padded = [n if len(n.partition(".")[0]) > 1 else f"0{n}" for n in smaller]
            marked = [n + sign for n, sign in zip([degrees, *padded], "°′″", strict=False)]
            found.append("".join(marked) + (west if value in "WO" else value))
            numbers = []
        elif _DECIMAL.fullmatch(value) and len(found) < 2:
            numbers.append(value)
        else:
            break  # region:IT_type:city
    if not found and len(numbers) == 2:
        signs = zip(numbers, (("N", "S"), ("E", west)), strict=True)
        found = [f"{n.lstrip('-−+')}°{letters[n[0] in '-−']}" for n, letters in signs]
    return " ".join(found) if len(found) == 2 else ""


def _age(numbers: list[str]) -> str:
    """Whole years between two dates; a hole without a second date, as today's is unknown."""
    if len(numbers) != 6 or not all(number.isdecimal() for number in numbers):
        return HOLE
    dates = [[int(number) for number in numbers[place : place + 3]] for place in (0, 3)]
    if len(numbers[2]) == 4:  # day, month, year
        dates = [date[::-1] for date in dates]
    (year, *birthday), (later, *day) = dates
    return str(later - year - (day < birthday))


def _ship(words: list[str]) -> str:
    """Prefix, name and number of a ship, in the format that the last argument asks for."""
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
