"""Evaluates `{{#expr:}}`, with bounded recursion and finite numbers."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)|([a-z]+)|(<=|>=|<>|!=|[-+−*/^()=<>]))",
    re.IGNORECASE,
)
_MAX_CHARS, _MAX_DEPTH = 2000, 40
_NUMBERS = {"e": math.e, "pi": math.pi}


class ExpressionError(ValueError):
    """Not an expression, or without a finite value."""


def _mod(left: float, right: float) -> float:
    return math.fmod(math.trunc(left), math.trunc(right))


def _round(value: float, digits: float) -> float:
    unit = Decimal(1).scaleb(-max(-20, min(20, int(digits))))
    return float(Decimal(repr(value)).quantize(unit, ROUND_HALF_UP))


_BINARY: dict[str, tuple[int, Callable[[float, float], float]]] = {
    "^": (9, lambda a, b: float(a**b)),
    "*": (7, operator.mul),
    "/": (7, operator.truediv),
    "div": (7, operator.truediv),
    "mod": (7, _mod),
    "fmod": (7, math.fmod),
    "+": (6, operator.add),
    "-": (6, operator.sub),
    "round": (5, _round),
    "=": (4, operator.eq),
    "<>": (4, operator.ne),
    "!=": (4, operator.ne),
    "<": (4, operator.lt),
    ">": (4, operator.gt),
    "<=": (4, operator.le),
    ">=": (4, operator.ge),
    "and": (3, lambda a, b: bool(a) and bool(b)),
    "or": (2, lambda a, b: bool(a) or bool(b)),
}
_UNARY: dict[str, tuple[int, Callable[[float], float]]] = {
    "-": (10, operator.neg),
    "+": (10, operator.pos),
    "not": (9, operator.not_),
    "ceil": (9, math.ceil),
    "floor": (9, math.floor),
    "trunc": (9, math.trunc),
    "abs": (9, abs),
    "sqrt": (9, math.sqrt),
    "ln": (9, math.log),
    "exp": (9, math.exp),
    "sin": (9, math.sin),
    "cos": (9, math.cos),
    "tan": (9, math.tan),
    "asin": (9, math.asin),
    "acos": (9, math.acos),
    "atan": (9, math.atan),
}


def evaluate(expression: str) -> str:
    """The value as MediaWiki writes it; empty for an empty expression.

    Raises `ExpressionError`.

    >>> evaluate("10 / 4 round 0"), evaluate("2 = 2.0"), evaluate("1/3")
    ('3', '1', '0.33333333333333')
    """
    if not expression.strip():
        return ""
    if len(expression) > _MAX_CHARS:
        raise ExpressionError("too long")
    tokens, position = [], 0
    text = expression.replace("&lt;", "<").replace("&gt;", ">").replace("&minus;", "-").strip()
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ExpressionError(f"unexpected {text[position]!r}")
        tokens.append(token.group().strip().lower().replace("−", "-"))
        position = token.end()
    try:
        value = _Reader(tokens).all()
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ExpressionError(str(error)) from error
    if isinstance(value, complex) or not math.isfinite(value):
        raise ExpressionError("not a finite number")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return re.sub(r"e([+-])0*(?=\d)", r"E\1", f"{value:.14g}")


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place, self.depth = [*tokens, ""], 0, 0

    def all(self) -> float:
        value = self.binary(0)
        if self.tokens[self.place]:
            raise ExpressionError(f"unexpected {self.tokens[self.place]}")
        return value

    def binary(self, weakest: int) -> float:
        """Applies operators that bind more strongly than `weakest`, from left to right."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ExpressionError("nested too deeply")
        left = self.operand()
        while (known := _BINARY.get(self.tokens[self.place])) and known[0] > weakest:
            self.place += 1
            left = float(known[1](left, self.binary(known[0])))
        self.depth -= 1
        return left

    def operand(self) -> float:
        token = self.tokens[self.place]
        self.place += 1
        if token in _UNARY:
            strength, function = _UNARY[token]
            return float(function(self.binary(strength)))
        if token == "(":
            value = self.binary(0)
            if self.tokens[self.place] == ")":
                self.place += 1
            elif self.tokens[self.place]:
                raise ExpressionError(f"unexpected {self.tokens[self.place]}")
            return value
        if token in _NUMBERS:
            return _NUMBERS[token]
        return float(token)
