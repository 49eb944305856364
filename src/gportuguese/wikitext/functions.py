"""MediaWiki's parser functions and magic words that depend only on the text and the page's title.

Their results are described on mediawiki.org (Help:Magic words, Help:Extension:ParserFunctions).
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


class Unknown(Exception):
    """The call cannot be expanded exactly."""


class Arguments(Protocol):
    """The arguments of a parser function, each expanded on first use."""

    @property
    def parts(self) -> list[Part]:
        """The arguments, not yet expanded."""

    @property
    def language(self) -> Language:
        """The wiki's language, for numbers."""

    def __getitem__(self, place: int) -> str:
        """An argument without the spaces around it; empty if it is missing."""

    def text_of(self, nodes: Nodes) -> str:
        """The expansion of nodes, without the spaces around it."""

    def known(self, nodes: Nodes) -> str:
        """The same for a condition: raises `Unknown` if it still contains a template call."""


class TextArguments:
    """Arguments that are text already."""

    def __init__(self, texts: list[str], language: Language) -> None:
        self.language, self.parts = language, [Part(None, [texts[0]])]
        for text in texts[1:]:
            name, equals, value = text.partition("=")
            self.parts.append(Part([name], [value]) if equals else Part(None, [name]))

    def __getitem__(self, place: int) -> str:
        """An argument without the spaces around it; empty if it is missing."""
        return self.text_of(self.parts[place].whole()) if place < len(self.parts) else ""

    def text_of(self, nodes: Nodes) -> str:
        """The nodes as text."""
        return "".join(str(node) for node in nodes).strip()

    known = text_of


Function = Callable[[Arguments], "str | None"]

ERROR = re.compile(
    r'<(?:strong|span|p|div)\s[^<>]{0,400}?class="(?:[^"<>]{0,200}\s)?error(?:\s[^"<>]*)?"'
)
_NUMERIC = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_EMPTY_PART = Part(None, [])
_SINGULAR = (("1",), ("0", "1"))  # French counts zero as singular
_MAX_PADDING = 500
# modules that check a call and show nothing
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
        # int() rejects very long digits
        signs = [each.strip().startswith("-") for each in (left, right)]
        digits = [each.strip().lstrip("+-").lstrip("0") for each in (left, right)]
        return digits[0] == digits[1] and (signs[0] == signs[1] or not digits[0])
    return float(left) == float(right)


def _ifeq(a: Arguments) -> str:
    left, right = (a.known(part.whole()) for part in (*a.parts, _EMPTY_PART)[:2])
    return a[2] if _same(html.unescape(left), html.unescape(right)) else a[3]


def _switch(a: Arguments) -> str:
    """The value of the first matching case; a case without a value shares the next one's."""
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
    if ends_with_case:  # a last case without a name is the default
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
    return a.language.write_number(a[0])


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


# a function returns None where a dump cannot tell the result
FUNCTIONS: dict[str, Function] = {
    "#if": _if,
    "#ifeq": _ifeq,
    "#switch": _switch,
    "#ifexist": lambda a: a[2],  # existence of pages is not looked up
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
    "plural": lambda a: a[1] if _first(a) in _SINGULAR[a.language.code == "fr"] else a[2] or a[1],
    "#language": lambda a: a.language.tongues.get(_first(a).lower()),
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
# local names in some large wikis; no name has two meanings
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
    SEITENNAME""".split()  # noqa: SIM905 - one per line would be longer
)
_NAMESPACES = """NAMESPACE SUBJECTSPACE ARTICLESPACE DOMINIO DOMÍNIO ESPACONOMINAL ESPAÇONOMINAL
    ESPACENOMMÉ NAMENSRAUM""".split()  # noqa: SIM905
_CONSTANTS = {"!": "|", "=": "=", "NAMESPACENUMBER": "0"} | dict.fromkeys(_NAMESPACES, "")


def magic_word(name: str, title: str) -> str | None:
    """The value of a word such as `PAGENAME` on an article; None if the word is unknown.

    >>> magic_word("PAGENAME", "Fado"), magic_word("!", "Fado"), magic_word("CURRENTYEAR", "Fado")
    ('Fado', '|', None)
    """
    if name in _TITLES:
        return title
    if name[-1:] == "E" and name[:-1] in _TITLES:
        return quote(title.replace(" ", "_"))
    return _CONSTANTS.get(name)
