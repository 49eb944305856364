"""From text without markup to lines of prose: headings, lists, end matter, and repaired punctuation."""

from __future__ import annotations

import html
import re
import unicodedata

from gportuguese.wikitext.languages import Language

_QUOTES = re.compile(r"'{2,}")
# two, three, or five and more: six and more enclosed something that is gone
_EMPHASIS = re.compile(r"''(?:'''+|')?")
_EXTERNAL = re.compile(
    r"\[(?:(?:https?|ftps?|news|irc|mailto|gopher):|//)[^\s\[\]]+"
    r"(?:[ \t]([^\[\]\n]*(?:\[[^\[\]\n]*\][^\[\]\n]*)*))?\]"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
_SWITCH = re.compile(r"__[A-ZÀ-Ü]{3,30}__")
_HEADING = re.compile(r"(={1,6})([^=\n](?:[^\n]*[^=\n])?)=+$")
_LIST = re.compile(r"[*#:;=\s]+")
_TABLE_ROW = re.compile(r"\||!(?=\s|!\s)|\{\|")

# Four pages in five need no repair, so what asks for it must be cheap: substrings, or a pattern that
# begins with a sign and looks back from there (one that began with a space would stop at every word).
_SPACES = ("\t", "\xa0", "\u2002", "\u2003", "\u2009", "\u200a", "\u202f")
_ODD_SPACES = re.compile(r"[\t\xa0\u2000-\u200a\u202f]+")
_HOLLOW = ("( ", "()", "(,", "(;", "(:", "(.", "(…", "[ ", "[]", "[,", "[;")
_LOOSE = re.compile(r"[,;:.)\]](?<=[ ,;:–-].)")
# A dash goes only where a space is beside it: "(1950–)" says that somebody lives.
_TIGHT = (
    (" ,", ","), (" ;", ";"), (" :", ":"), (" )", ")"), (" ]", "]"), ("( ", "("), ("[ ", "["),
    ("(,", "("), ("(;", "("), ("(:", "("), ("(– ", "("), ("(- ", "("), ("[,", "["), ("[;", "["),
    (",)", ")"), (";)", ")"), (":)", ")"), (" –)", ")"), (" -)", ")"), (",]", "]"), (";]", "]"),
    ("()", ""), ("(.)", ""), ("(…)", ""), ("[]", ""), (",,", ","), (",.", "."), (",;", ";"),
    ("  ", " "),
)  # fmt: skip
_MAX_ROUNDS = 5  # "( , ; )" takes three
_LATE_POINT = re.compile(r" \.(?!\w)")  # but not in "calibre .45" or ".pt"
_DOTS = re.compile(r"\.{4,}")


def lay_out(text: str, language: Language) -> str:
    """The lines of prose in `text`: one a paragraph, list item or heading that has prose under it.

    >>> from gportuguese.wikitext import language_of
    >>> lay_out("'''Fado''' ( ) é\\n\\n== Obras ==\\n* Uma\\n== Ver também ==\\n* Outra", language_of("pt"))
    'Fado é\\nObras.\\nUma'
    """
    text = drop_emphasis(text)
    if "[" in text:
        text = _EXTERNAL.sub(lambda match: match[1] or "", text)
    if "__" in text:
        text = _SWITCH.sub("", text)
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    lines: list[str] = []
    headings: list[tuple[int, str]] = []  # those seen since the last line of prose
    tail_level = 0  # of the end-matter heading that we are under
    for line in repair(text).split("\n"):
        line = line.strip().lstrip("} ")  # of a template that was closed too often
        if not line:
            continue
        if line[0] == "=" and (heading := _HEADING.match(line)):
            level, title = len(heading[1]), heading[2].strip()
            if tail_level and level > tail_level:
                continue
            tail_level = level if title.rstrip(".:").lower() in language.tail_sections else 0
            headings = [each for each in headings if each[0] < level]
            if not tail_level and any(map(str.isalnum, title)):
                headings.append((level, title))
            continue
        if line[0] in "*#:;=":
            line = line[_LIST.match(line).end() :]  # type: ignore[union-attr]
        if tail_level or _TABLE_ROW.match(line) or not any(map(str.isalnum, line)):
            continue
        lines += [title if title[-1] in ".!?…:" else f"{title}." for _, title in headings]
        headings.clear()
        lines.append(line)
    return "\n".join(lines)


def drop_emphasis(text: str) -> str:
    """`text` without the marks of italics and bold; apostrophes beside them stay.

    As MediaWiki reads them (`Parser::doQuotes`): where a line would leave both bold and italics open,
    three quotes are an apostrophe and italics.

    >>> drop_emphasis("Virgilio scrisse l'''Eneide'' e l''altro''")
    "Virgilio scrisse l'Eneide e laltro"
    """
    if "'''" in text:
        lines = text.split("\n")
        text = "\n".join(_keep_apostrophe(line) if "'''" in line else line for line in lines)
    return _EMPHASIS.sub("", text)


def _keep_apostrophe(line: str) -> str:
    """The line with a fourth quote where the first of three is an apostrophe."""
    runs = [(run.start(), len(run[0])) for run in _QUOTES.finditer(line)]
    num_bold = sum(length > 2 for _, length in runs)
    num_italic = sum(length == 2 or length > 4 for _, length in runs)
    starts = [start for start, length in runs if length == 3]
    if not (num_bold % 2 and num_italic % 2 and starts):
        return line

    def rank(start: int) -> int:
        """After a word of one letter; after a longer one; after a space."""
        if line[start - 1 : start] == " ":
            return 2
        return 0 if line[max(start - 2, 0) : start - 1] == " " else 1

    first = min(starts, key=rank)
    return f"{line[:first]}'{line[first:]}"


def repair(text: str) -> str:
    """Lines without the punctuation that dropped markup leaves hanging.

    >>> repair("Moscou (, ) é  a capital ( ; desde 1918 ) .")
    'Moscou é a capital (desde 1918).'
    """
    if any(space in text for space in _SPACES):
        text = _ODD_SPACES.sub(" ", text)
    while "  " in text:
        text = text.replace("  ", " ")
    if _LOOSE.search(text) or any(hollow in text for hollow in _HOLLOW):
        for _ in range(_MAX_ROUNDS):
            before = text
            for loose, tight in _TIGHT:
                text = text.replace(loose, tight)
            if text == before:
                break
        text = _LATE_POINT.sub(".", text)
    return _DOTS.sub("...", text) if "...." in text else text
