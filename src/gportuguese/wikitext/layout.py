"""Turns text without markup into lines of prose; drops end matter and repairs punctuation."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.marks import HOLE, NOTHING

_AROUND_NOTHING = re.compile(rf"(?<!')('{{2,}}){NOTHING}+\1(?!')")
_QUOTES = re.compile(r"'{2,}")
# two, three, or five and more; six and more enclosed removed markup
_EMPHASIS = re.compile(r"''(?:'''+|')?")
_EXTERNAL = re.compile(
    r"\[(?:(?:https?|ftps?|news|irc|mailto|gopher):|//)[^\s\[\]]+"
    r"(?:[ \t]([^\[\]\n]*(?:\[[^\[\]\n]*\][^\[\]\n]*)*))?\]"
)
# the language converter of Chinese, Serbian and others: -{zh-hans:软件;zh-hant:軟體}-
_VARIANT = re.compile(r"-\{(?:([A-Za-z;+-]{0,40})\|)?([^{}\n]{0,400})\}-")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
_SWITCH = re.compile(r"__[^\W\d_a-zß-ÿ]{3,30}(?:_[^\W\d_a-zß-ÿ]{1,30})*__")
# Soft hyphens, zero-width spaces and direction marks; joiners only after letters of scripts without them.
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]|[\u200c\u200d](?<=[\\0-\u024f].)"
)
_INVISIBLE_SIGNS = tuple("\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202c\u2060\u2069\ufeff")
_HEADING = re.compile(r"(={1,6})([^=\n](?:[^\n]*[^=\n])?)=+$")
_LIST = re.compile(r"[*#:;=\s]+")
_LEADING_MARKS = frozenset("}=*#:;|!{")
_TABLE_ROW = re.compile(r"\||!(?=\s|!\s)|\{\|")
# At least two letters before the point, so that "Sr. Silva" does not end a sentence.
_CLOSES = r"[\w)\]\"”»%]"
_SENTENCE_END = re.compile(
    rf"(?:(?<={_CLOSES}{_CLOSES}[.!?])|(?<={HOLE}[.!?]))\s+(?=[^\Wa-zß-ÿ_]|[\"“«(])"
)

# A remark in parentheses that the sentence reads well without: "$9 million (today $150 million)"
_ASIDE = re.compile(rf" \((?=[^()]*\b[^\W\d_]{{4}})[^(){HOLE}]*{HOLE}[^()]*\)")

# Four pages in five need no repair, so the search for faults must be cheap: substrings, or a pattern that
# begins with a sign and looks back from there. A pattern that begins with a space would stop at every word.
_SPACES = ("\t", "\xa0", "\u2002", "\u2003", "\u2009", "\u200a", "\u202f")
_ODD_SPACES = re.compile(r"[\t\xa0\u2000-\u200a\u202f]+")
_LOOSE = re.compile(  # one set of signs, to which the search can skip
    r"[,;:.)\](\[»”](?:(?<=[ ,;:–\n-][,;:.)\]])|(?<=[(\[])(?=[ ),;:.…\]])|(?<=[«“].)|(?<=« .)|(?<=“ .))"
)
# A dash is removed only with a space beside it: "(1950–)" means that somebody is alive.
_TIGHT = (
    ("( – )", ""), ("( - )", ""), ("«»", ""), ("« »", ""), ("“”", ""), ("“ ”", ""),
    (" ,", ","), (" ;", ";"), (" :", ":"), (" )", ")"), (" ]", "]"), ("( ", "("), ("[ ", "["),
    ("(,", "("), ("(;", "("), ("(:", "("), ("(– ", "("), ("(- ", "("), ("[,", "["), ("[;", "["),
    (",)", ")"), (";)", ")"), (":)", ")"), (" –)", ")"), (" -)", ")"), (",]", "]"), (";]", "]"),
    ("()", ""), ("(.)", ""), ("(…)", ""), ("[]", ""), (",,", ","), (",;", ";"),
    (";;", ";"), (";,", ","), ("  ", " "),
)  # fmt: skip
_MAX_ROUNDS = 5  # "( , ; )" takes three
_LATE_POINT = re.compile(r" \.(?![\w.])")  # but not in "calibre .45", ".pt" or " ..."
_ENDED = re.compile(r"[,;:]+ ?([.!?])(?![.\w])")  # but not "1, 2, 3,..."
_LEADING = re.compile(r"(?!\.[\w.])[,;:.)\]]+ *")
_DOTS = re.compile(r"\.{4,}")
# "(en allemand : )" has lost the word that it names, a pronunciation
_LABEL_ALONE = re.compile(r" ?\([^():;,\n]{1,40}: ?\)")
_COORDINATES = re.compile(r"[\d.°′″]+[NS] [\d.°′″]+[EWO]")

_Line = tuple[int, str]
"""The level of a heading (0 for other lines), and the words."""


def lay_out(text: str, language: Language) -> tuple[str, int]:
    """The lines of prose in `text`, and the number of sentences dropped because of a formula in them.

    Each paragraph, list item, and heading with prose under it is one line.

    >>> from gportuguese.wikitext import language_of
    >>> lay_out("'''Fado''' ( )\\né\\n\\n== Obras ==\\n* Uma\\n== Fontes ==\\n* Outra", language_of("pt"))
    ('Fado é\\nObras\\nUma', 0)
    """
    text = drop_emphasis(text)
    if "[" in text:
        text = _EXTERNAL.sub(lambda match: match[1] or "", text)
        text = language.editors_note.sub("", text)
    if "-{" in text:
        text = _VARIANT.sub(_first_variant, text)
    if "__" in text:
        text = _SWITCH.sub("", text)
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if any(sign in text for sign in _INVISIBLE_SIGNS):
        text = _INVISIBLE.sub("", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    lines, num_dropped = _lines(text, language), 0
    if HOLE in text:
        lines, num_dropped = _without_holes(lines)
    return repair("\n".join(_with_used_headings(lines)), language.spaced), num_dropped


def _first_variant(match: re.Match[str]) -> str:
    """The first variant of a word; nothing for a hidden rule or a title."""
    if set(match[1] or "") & set("HT-"):
        return ""
    first = match[2].partition(";")[0]
    code, colon, words = first.partition(":")
    is_rule = bool(colon) and code.strip().replace("-", "").isalpha()
    return words.strip() if is_rule else first


def _lines(text: str, language: Language) -> list[_Line]:
    """Headings, paragraphs and list items, each on one line, without end matter."""
    lines: list[_Line] = []
    tail_level = 0  # of the end-matter heading above this line
    is_open = False  # the last line is a paragraph that the next line continues
    for line in text.split("\n"):
        continues, is_open = is_open, line[:1] != " "
        line = line.strip()
        if line[:1] in _LEADING_MARKS:
            line = line.lstrip("} ")  # from a template closed too often
            if heading := _HEADING.match(line):
                level, title = len(heading[1]), heading[2].strip()
                is_open = False
                if not tail_level or level <= tail_level:
                    tail_level = level if language.is_tail(title) else 0
                    if not tail_level and any(map(str.isalnum, title)):
                        lines.append((level, title))
                continue
            if mark := _LIST.match(line):
                is_term, line = line[0] == ";", line[mark.end() :]
                continues = is_open = False
                if is_term and language.is_tail(line):  # a heading typed as a list term: ;Notes
                    continue
            if _TABLE_ROW.match(line):
                is_open = False
                continue
        if _COORDINATES.fullmatch(line):
            continue  # they belong to the page's title
        if tail_level or not (line[:1].isalnum() or any(map(str.isalnum, line)) or HOLE in line):
            is_open = False
        elif continues and is_open:
            lines[-1] = (0, f"{lines[-1][1]} {line}")
        else:
            lines.append((0, line))
    return lines


def _with_used_headings(lines: list[_Line]) -> Iterator[str]:
    """The lines without headings that have no prose under them."""
    headings: list[_Line] = []  # since the last line of prose
    for level, line in lines:
        if level:
            headings = [each for each in headings if each[0] < level]
            headings.append((level, line))
        else:
            yield from (title for _, title in headings)
            headings.clear()
            yield line


def _without_holes(lines: list[_Line]) -> tuple[list[_Line], int]:
    """The lines without the sentences that have a hole, and the number of those sentences.

    A formula on a line of its own belongs to the sentence before it, and to the words after it if they
    begin in lower case.
    """
    kept: list[_Line] = []
    num_dropped, lacks_beginning, leads_on = 0, False, False
    for level, line in lines:
        if HOLE in line and not any(map(str.isalnum, line)):
            num_dropped += not lacks_beginning
            if (
                not (lacks_beginning or leads_on)
                and kept
                and not kept[-1][0]
                and kept[-1][1][-1] not in ".!?"
            ):
                *sentences, _ = _SENTENCE_END.split(kept.pop()[1])
                kept += [(0, " ".join(sentences))] if sentences else []
            lacks_beginning, leads_on = True, False
            continue
        if HOLE in line:
            line = _ASIDE.sub("", line)
        sentences = _SENTENCE_END.split(line)
        whole = [sentence for sentence in sentences if HOLE not in sentence]
        num_dropped += len(sentences) - len(whole)
        leads_on = False
        if lacks_beginning and sentences[0] in whole[:1] and line[0].islower():
            del whole[0]
            leads_on = not whole and line[-1] not in ".!?"  # "and so:", before another formula
        lacks_beginning = False
        if whole:
            kept.append((level, " ".join(whole)))
    return kept, num_dropped


def drop_emphasis(text: str) -> str:
    """`text` without the marks of italics and bold; apostrophes next to them are kept.

    As in MediaWiki (`Parser::doQuotes`), three quotes are an apostrophe and italics on a line that would
    otherwise leave both bold and italics open.

    >>> drop_emphasis("Virgilio scrisse l'''Eneide'' e l''altro''")
    "Virgilio scrisse l'Eneide e laltro"
    """
    are_apart = NOTHING in text
    if are_apart:
        text = _AROUND_NOTHING.sub("", text)
    if "'''" in text:
        lines = text.split("\n")
        text = "\n".join(_keep_apostrophe(line) if "'''" in line else line for line in lines)
    text = _EMPHASIS.sub("", text)
    return text.replace(NOTHING, "") if are_apart else text


def _keep_apostrophe(line: str) -> str:
    """The line with a quote added where the first of three quotes is an apostrophe."""
    runs = [(run.start(), len(run[0])) for run in _QUOTES.finditer(line)]
    num_bold = sum(length > 2 for _, length in runs)
    num_italic = sum(length == 2 or length > 4 for _, length in runs)
    starts = [start for start, length in runs if length == 3]
    if not (num_bold % 2 and num_italic % 2 and starts):
        return line

    def rank(start: int) -> int:
        """0 after a one-letter word, 1 after a longer word, 2 after a space."""
        if line[start - 1 : start] == " ":
            return 2
        return 0 if line[max(start - 2, 0) : start - 1] == " " else 1

    first = min(starts, key=rank)
    return f"{line[:first]}'{line[first:]}"


def repair(text: str, spaced: str = "") -> str:
    """Lines without the punctuation that removed markup left hanging.

    Signs in `spaced` keep the space before them.

    >>> repair("Moscou (, ) é  a capital ( ; desde 1918 ) .")
    'Moscou é a capital (desde 1918).'
    """
    if any(space in text for space in _SPACES):
        text = _ODD_SPACES.sub(" ", text)
    while "  " in text:
        text = text.replace("  ", " ")
    if loose := _LEADING.match(text):
        text = text[loose.end() :]
    pieces, end = [], 0
    for loose in _LOOSE.finditer(text):
        if loose.start() >= end:  # on a line not yet repaired
            start = text.rfind("\n", end, loose.start()) + 1 or end
            pieces.append(text[end:start])
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            pieces.append(_tightened(text[start:end], spaced))
    text = "".join([*pieces, text[end:]])
    return _DOTS.sub("...", text) if "...." in text else text


def _tightened(line: str, spaced: str) -> str:
    for _ in range(_MAX_ROUNDS):
        before = line
        line = _LATE_POINT.sub(".", line)
        if ":" in line:
            line = _LABEL_ALONE.sub("", line)
        for loose, tight in _TIGHT:
            if not spaced or loose[0] != " " or loose[1] not in spaced:
                line = line.replace(loose, tight)
        line = _ENDED.sub(r"\1", line)
        if line == before:
            break
    start = _LEADING.match(line)
    return line[start.end() :] if start else line.strip()
