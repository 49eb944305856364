"""Writes simple formulas as text: f, E=mc^2, λ_1, x ∈ A."""

from __future__ import annotations

import re
import unicodedata
from html.entities import html5

_TOKEN = re.compile(r"\\[A-Za-z]+\s*|\\.|\s+|.", re.DOTALL)
_MAX_TEX = 300
_MAX_TEXT = 80  # longer formulas are displayed apart from the prose
_MAX_DEPTH = 20
_SIMPLE = re.compile(r"[-+−–]?(?:\d+(?:[.,]\d+)*|[^\W_]+)|[*+−–′-]|°")

_LOOSE = re.compile(r" (?=[)\],;])|(?<=[(\[]) ")

_IGNORED = frozenset((
    "mathrm", "mathbf", "mathbb", "mathcal", "mathit", "mathfrak", "mathsf", "mathtt", "mathscr",
    "boldsymbol", "bold", "operatorname", "text", "textrm", "textbf", "textit", "mbox", "hbox", "rm",
    "bf", "it", "cal", "displaystyle", "textstyle", "scriptstyle", "big", "Big", "bigl", "bigr",
    "Bigl", "Bigr", "nolimits", "!",
))  # fmt: skip
_FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh",
    "log", "ln", "lg", "exp", "det", "dim", "ker", "deg", "arg", "gcd", "hom", "max", "min", "sup",
    "inf", "Pr", "mod",
))  # fmt: skip
_ACCENTS = {"vec": "\u20d7", "bar": "\u0304", "overline": "\u0304", "hat": "\u0302",
            "tilde": "\u0303", "dot": "\u0307", "ddot": "\u0308"}  # fmt: skip
_FRACTIONS = frozenset(("frac", "dfrac", "tfrac"))
# operators with limits above and below do not fit a line
_TALL = frozenset(
    ("sum", "prod", "coprod", "int", "oint", "iint", "iiint", "bigcup", "bigcap", "not")
)
_SPACES = frozenset((",", ";", ":", " ", "quad", "qquad", "enspace", "thinspace"))
# signs that HTML names differently; TeX and HTML share most names, from the same ISO sets
_SIGNS = {
    "to": "→", "infty": "∞", "partial": "∂", "exists": "∃", "neq": "≠", "neg": "¬", "lnot": "¬",
    "land": "∧", "lor": "∨", "circ": "∘", "cdot": "·", "implies": "⇒", "ldots": "...", "dots": "...",
    "cdots": "...", "degree": "°", "star": "⋆", "varepsilon": "ε", "varphi": "φ", "phi": "φ",
    "models": "⊨", "colon": ": ", "R": "R", "N": "N", "Z": "Z", "Q": "Q", "C": "C", "longrightarrow": "→", "longleftarrow": "←", "gets": "←",
    "lvert": "|", "rvert": "|", "mid": "|", "vert": "|", "|": "‖", "backslash": "\\",
}  # fmt: skip
_TIGHT = frozenset("¬∀∃∇∂∞√±∓…|‖⟨⟩⌊⌋⌈⌉∅°∘")


class _Unreadable(Exception):
    """The formula cannot be written as text."""


def formula_text(tex: str) -> str | None:
    """The formula as one would type it in a sentence; None if it cannot be typed.

    >>> formula_text(r"x_{1}\\in \\mathbb {R} ^{n+1}"), formula_text(r"\\sum _{i}a_{i}")
    ('x_1 ∈ R^(n+1)', None)
    """
    if len(tex) > _MAX_TEX:
        return None
    tokens = _TOKEN.findall(tex)[::-1]
    try:
        text = _sequence(tokens, "", 0)
    except (_Unreadable, IndexError):  # it ends before an argument
        return None
    text = _LOOSE.sub("", " ".join(text.split())).replace("''", "″")
    text = unicodedata.normalize("NFC", text)
    is_nested = any(mark in text for mark in ("[[", "]]", "{{", "}}", "((("))
    return None if is_nested or len(text) > _MAX_TEXT else text


def chemistry_text(source: str) -> str | None:
    """The same for <chem> and <ce>, which are typed nearly as they read.

    >>> chemistry_text("2H2 + O2 -> 2H2O")
    '2H2 + O2 → 2H2O'
    """
    text = source.strip().replace("<->", "↔").replace("->", "→").replace("_", "")
    return text if len(text) <= _MAX_TEXT and re.fullmatch(r"[\w\s()+^=→↔-]*", text) else None


def _sequence(tokens: list[str], end: str, depth: int) -> str:
    """The text up to the token `end`."""
    if depth > _MAX_DEPTH:
        raise _Unreadable
    text = ""
    while tokens:
        token = tokens.pop()
        if token == end:
            return text
        if token in "^_":
            text = text.rstrip() + _index(token, _argument(tokens, depth))
        elif token in "}&" or token == "\\\\":
            raise _Unreadable
        else:
            text += _words(token, tokens, depth)
    if end:
        raise _Unreadable
    return text


def _argument(tokens: list[str], depth: int) -> str:
    token = tokens.pop()
    while token.isspace():
        token = tokens.pop()
    if token in "^_}&":
        raise _Unreadable
    return _words(token, tokens, depth).strip()


def _words(token: str, tokens: list[str], depth: int) -> str:
    """The text of a token and its arguments."""
    if token == "{":
        return _sequence(tokens, "}", depth + 1)
    if token[0] != "\\" or len(token) == 1:
        if token in "<>":
            return f" {token} "
        return " " if token == "~" else token
    name = token[1:].strip() or " "
    if name in ("left", "right"):
        if tokens[-1] == ".":
            tokens.pop()
        return ""
    if name in _IGNORED:
        return ""
    if name in _SPACES:
        return " "
    if name in "{}%$#_&":
        return name
    if name in _FUNCTIONS:
        following = tokens[-1] if tokens else ""
        is_word = following[:1].isalnum() or following[:1] == "\\"
        return f"{name} " if is_word and not following.startswith("\\left") else name
    if name in _FRACTIONS:
        above, below = _argument(tokens, depth), _argument(tokens, depth)
        if "/" in above + below:
            raise _Unreadable
        return f"{_enclosed(above)}/{_enclosed(below)}"
    if name == "sqrt" and tokens[-1] != "[":
        return "√" + _enclosed(_argument(tokens, depth))
    if name in _ACCENTS:
        letter = _argument(tokens, depth)
        if len(letter) != 1:
            raise _Unreadable
        return letter + _ACCENTS[name]
    sign = None if name in _TALL else _SIGNS.get(name) or html5.get(f"{name};")
    if sign is None or unicodedata.category(sign[0]) == "Sk":  # an accent without a letter
        raise _Unreadable
    if unicodedata.category(sign[0]) in ("Sm", "So") and sign not in _TIGHT:
        return f" {sign} "
    return sign


def _index(mark: str, content: str) -> str:
    """An exponent or index: ^2, _ij, ^(n+1)."""
    if content in ("∘", "°"):
        return "°"
    if not content or "^" in content or "_" in content:
        raise _Unreadable
    is_one = _SIMPLE.fullmatch(content) or re.fullmatch(r"\([^()]*\)", content)
    return mark + (content if is_one else f"({content})")


def _enclosed(text: str) -> str:
    if not text:
        raise _Unreadable
    is_one = re.fullmatch(r"[\w.,^′']+|√\w+", text)
    return text if is_one else f"({text})"
