"""Bounds of single fields, written next to the field: `rate: Annotated[float, Within("(0, inf)")] = 1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LANGUAGE = r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*"
_TONGUES = Path(__file__).parents[1] / "wikitext" / "languages" / "tongues.tsv"


@dataclass(frozen=True)
class Within:
    """A number in an interval. Square brackets include the endpoint, round ones exclude it."""

    interval: str

    def problem(self, value: float) -> str | None:
        """Describes what is wrong with a value; None if it is valid.

        >>> Within("[1, inf)").problem(0), Within("[0, 1)").problem(0.5)
        ('must be at least 1', None)
        """
        low, high = self.interval[1:-1].split(", ")
        is_high_enough = value > float(low) or (self.interval[0] == "[" and value == float(low))
        is_low_enough = value < float(high) or (self.interval[-1] == "]" and value == float(high))
        if is_high_enough and is_low_enough:
            return None
        if high == "inf":
            return f"must be {'at least' if self.interval[0] == '[' else 'above'} {low}"
        return f"must lie in {self.interval}"


@dataclass(frozen=True)
class Matches:
    """Text that matches a pattern."""

    pattern: str
    wanted: str
    """The pattern in words, for the error message."""

    def problem(self, value: Any) -> str | None:
        """Describes what is wrong with a value; None if it is valid."""
        return None if re.fullmatch(self.pattern, value) else f"must be {self.wanted}"


@dataclass(frozen=True)
class IsLanguage:
    """The code of a language, with or without a region: `pt`, `pt-BR`."""

    def problem(self, value: str) -> str | None:
        """Describes what is wrong with a value; None if it is valid.

        >>> IsLanguage().problem("English"), IsLanguage().problem("pt-BR")
        ('must be an ISO 639 code; did you mean en?', None)
        """
        if re.fullmatch(_LANGUAGE, value):
            return None
        near = _codes_by_name().get(value.lower(), value.replace("_", "-"))
        hint = (
            f"; did you mean {near}?" if re.fullmatch(_LANGUAGE, near) else ", such as pt or pt-BR"
        )
        return f"must be an ISO 639 code{hint}"


def _codes_by_name() -> dict[str, str]:
    """The code of each language by its names in Portuguese, English, Spanish, French, German and Italian."""
    lines = _TONGUES.read_text(encoding="utf-8").splitlines()[2:]
    rows = sorted((line.lower().split("\t") for line in lines), key=lambda row: -len(row[0]))
    return {name: code for code, *names in rows for name in names}  # the shorter code wins


@dataclass(frozen=True)
class OneOf:
    """One of the listed words."""

    words: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        """Describes what is wrong with a value; None if it is valid."""
        return None if value in self.words else f"is not one of {', '.join(self.words)}"
