"""MediaWiki's parser functions and magic words, those that follow from the text and the page's title.

What they give is described on mediawiki.org (Help:Magic words, Help:Extension:ParserFunctions).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, quote_plus

from gportuguese.wikitext.expressions import ExpressionError, evaluate
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.preprocessor import Nodes, Part
from gportuguese.wikitext.templates import write_number


class Unknown(Exception):
    """A call that cannot be expanded exactly."""


class Arguments(Protocol):
    """The arguments of a parser function; each is worked out when it is asked for."""

    @property
    def parts(self) -> list[Part]:
        """What stands between the bars, unread."""

    @property
    def language(self) -> Language:
        """How the wiki writes numbers."""

    def __getitem__(self, place: int) -> str:
        """An argument without the spaces around it; empty if it is not there."""

    def text_of(self, nodes: Nodes) -> str:
        """The expansion of nodes, without the spaces around it."""

    def known(self, nodes: Nodes) -> str:
        """The same, where it decides something: raises `Unknown` if a call is left in it."""


Function = Callable[[Arguments], "str | None"]

ERROR = re.compile(
    r'<(?:strong|span|p|div)\s[^<>]{0,400}?class="(?:[^"<>]{0,200}\s)?error(?:\s[^"<>]*)?"'
)
_NUMERIC = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_EMPTY_PART = Part(None, [])
_MAX_PADDING = 500
# modules that check a call and show nothing to readers
_SILENT_MODULES = ("check for unknown parameters", "check for deprecated parameters")


def _first(a: Arguments) -> str:
    return a.known(a.parts[0].whole())


def _if(a: Arguments) -> str:
    return a[1] if a[0] else a[2]


def _same(left: str, right: str) -> bool:
    """Whether PHP's `==` holds: numbers are compared as numbers."""
    if left == right:
        return True
    if not (_NUMERIC.fullmatch(left) and _NUMERIC.fullmatch(right)):
        return False
    if left.strip().lstrip("+-").isdigit() and right.strip().lstrip("+-").isdigit():
        # int() of very long digits is slow, and refused
        signs = [each.strip().startswith("-") for each in (left, right)]
        digits = [each.strip().lstrip("+-").lstrip("0") for each in (left, right)]
        return digits[0] == digits[1] and (signs[0] == signs[1] or not digits[0])
    return float(left) == float(right)


def _ifeq(a: Arguments) -> str:
    left, right = (a.known(part.whole()) for part in (*a.parts, _EMPTY_PART)[:2])
    return a[2] if _same(html.unescape(left), html.unescape(right)) else a[3]


def _switch(a: Arguments) -> str:
    """The value of the first case that matches; cases without a value share that of the next."""
    wanted = html.unescape(_first(a))
    is_found = default_next = ends_with_case = False
    default: Nodes | None = None
    case = ""
    for part in a.parts[1:]:
        ends_with_case = part.name is None
        if part.name is not None and is_found:
            return a.text_of(part.value)
        case = a.known(part.value if part.name is None else part.name)
        is_match = _same(html.unescape(case), wanted)
        is_default = case.lower() in _DEFAULTS
        if part.name is None:
            is_found = is_found or is_match
            default_next = default_next or (is_default and not is_match)
        elif is_match:
            return a.text_of(part.value)
        elif is_default or default_next:
            default, default_next = part.value, False
    if ends_with_case:  # the last case has no value: it is one itself
        return case
    return "" if default is None else a.text_of(default)


def _expr(a: Arguments) -> str:
    try:
        return evaluate(_first(a))
    except ExpressionError:
        return '<strong class="error">Expression error</strong>'


def _ifexpr(a: Arguments) -> str:
    value = _expr(a)
    if value.startswith("<"):
        return value
    return a[1] if value and float(value) else a[2]


def _iferror(a: Arguments) -> str:
    if ERROR.search(a[0]):
        return a[1]
    return a[2] if len(a.parts) > 2 else a[0]


def _formatnum(a: Arguments) -> str:
    if a[1].lower() in ("r", "nosep"):
        return a[0]
    return write_number(a[0], a.language)


def _pad(a: Arguments, left: bool) -> str:
    padding = a[2] if len(a.parts) > 2 else "0"
    length = int(a[1]) if a[1].isdigit() and len(a[1]) < 6 else 0
    text = _first(a)
    missing = min(length, _MAX_PADDING) - len(text)
    if missing <= 0 or not padding:
        return text
    filling = (padding * missing)[:missing]
    return filling + text if left else text + filling


def _tag(a: Arguments) -> str | None:
    if a[0].lower() == "ref":
        return ""  # a note
    return f"<nowiki>{a[1]}</nowiki>" if a[0].lower() == "nowiki" else None


def _invoke(a: Arguments) -> str | None:
    return "" if a[0].lower() in _SILENT_MODULES else None


def _urlencode(a: Arguments) -> str:
    style = a[1].lower()
    if style == "wiki":
        return quote(a[0].replace(" ", "_"), safe="/:;@$!*(),~")
    return quote(a[0], safe="") if style == "path" else quote_plus(a[0])


def _url(a: Arguments) -> str:
    return f"//{a.language.code}.wikipedia.org/wiki/{quote(a[0].replace(' ', '_'))}"


def _nothing(_: Arguments) -> str:
    return ""


# None: it cannot be known from a dump
FUNCTIONS: dict[str, Function] = {
    "#if": _if,
    "#ifeq": _ifeq,
    "#switch": _switch,
    "#ifexist": lambda a: a[2],  # which pages there are is not looked up
    "#expr": _expr,
    "#ifexpr": _ifexpr,
    "#iferror": _iferror,
    "#tag": _tag,
    "#invoke": _invoke,
    "#coordinates": _nothing,
    "lc": lambda a: _first(a).lower(),
    "uc": lambda a: _first(a).upper(),
    "lcfirst": lambda a: _first(a)[:1].lower() + _first(a)[1:],
    "ucfirst": lambda a: _first(a)[:1].upper() + _first(a)[1:],
    "formatnum": _formatnum,
    "padleft": lambda a: _pad(a, left=True),
    "padright": lambda a: _pad(a, left=False),
    "urlencode": _urlencode,
    "anchorencode": lambda a: a[0].replace(" ", "_"),
    "fullurl": _url,
    "localurl": _url,
    "canonicalurl": _url,
    "pagename": lambda a: a[0],
    "namespace": _nothing,
    "defaultsort": _nothing,
    "displaytitle": _nothing,
}
_DEFAULTS = {"#default", "#padrão", "#padrao", "#standard", "#standaard", "#baku", "#інакше"}
# other names of the same in some large wikis; no two of them mean different things
_ALIASES = {
    "#if": "#se #si #als #om #jika #якщо #ha #když",
    "#ifeq": "#seigual #seeq #alsgelijk #omlika #omlik #jikasama #якщорівні",
    "#ifexpr": "#seexpr #seespr #siexpr #alsexpressie #omutr #jikahitung #якщовираз",
    "#iferror": "#seerro #seerrore #sierror #alsfout #omfel #jikasalah #якщопомилка",
    "#ifexist": "#seexiste #seesiste #siexiste #alsbestaat #omfinns #jikaada #якщоіснує",
    "#switch": "#según #wechsle #schakelen #växel #pilih #вибірка",
    "#expr": "#espr #expressie #utr #hitung #вираз",
    "lc": "minuscula minúscula minuscule",
    "uc": "maiuscula maiúscula maiuscolo",
    "formatnum": "formatanum formatarnum formatnombre",
    "defaultsort": "ordenacaopadrao ordenaçãopadrão defaultsortkey ordenar sortierung cledetri ordinamento",
}
FUNCTIONS |= {each: FUNCTIONS[name] for name, others in _ALIASES.items() for each in others.split()}
_TITLES = frozenset(
    """PAGENAME FULLPAGENAME BASEPAGENAME ROOTPAGENAME SUBPAGENAME ARTICLEPAGENAME SUBJECTPAGENAME
    NOMEDAPAGINA NOMEDAPÁGINA NOMECOMPLETODAPAGINA NOMBREDEPAGINA NOMBREDEPÁGINA NOMPAGE NOMEPAGINA
    SEITENNAME""".split()  # noqa: SIM905 - one a line is longer, and no easier to read
)
_NAMESPACES = """NAMESPACE SUBJECTSPACE ARTICLESPACE DOMINIO DOMÍNIO ESPACONOMINAL ESPAÇONOMINAL
    ESPACENOMMÉ NAMENSRAUM""".split()  # noqa: SIM905
_CONSTANTS = {"!": "|", "=": "=", "NAMESPACENUMBER": "0"} | dict.fromkeys(_NAMESPACES, "")


def magic_word(name: str, title: str) -> str | None:
    """The value of a word such as `PAGENAME` on an article; None if it is not one that we know.

    >>> magic_word("PAGENAME", "Fado"), magic_word("!", "Fado"), magic_word("CURRENTYEAR", "Fado")
    ('Fado', '|', None)
    """
    if name in _TITLES:
        return title
    if name[-1:] == "E" and name[:-1] in _TITLES:
        return quote(title.replace(" ", "_"))
    return _CONSTANTS.get(name)
