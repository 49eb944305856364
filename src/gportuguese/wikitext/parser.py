"""Removes the markup of wikitext in one pass with a stack; time is linear in the page's length."""

from __future__ import annotations

import html
import re

from gportuguese.wikitext.formulas import chemistry_text, formula_text
from gportuguese.wikitext.inline import link_words, raised_words
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.marks import BAR, EQUALS, HOLE, NOTHING, PROTECT, RESTORE, join_pieces
from gportuguese.wikitext.patterns import (
    AFTER_ROWS,
    FIELDS,
    HIDDEN,
    MAX_PARAMETER_DEPTH,
    NOWIKI,
    PARAMETER,
    REF,
    TOKEN,
    TOKEN_WITHOUT_COMMENT_ENDS,
    UNSHOWABLE,
    end_of_call,
)
from gportuguese.wikitext.tags import BREAKS, CODE, DROPPED_BLOCKS, DROPPED_ELEMENTS, FORMULAS, TAGS
from gportuguese.wikitext.templates import leaves_words, template_words

_SINGLE_END = re.compile(r"^([^\[\]\n]*)\]")  # [[link]
_MAX_FAILED_SKIPS = 3  # each reads to the end of the page
_LOOK_BACK = 300
_SENTENCE_ENDS = frozenset(".!?")
_MAX_DEPTH = 60  # MediaWiki stops at 40; deeper marks are dropped, so that cost stays linear


class _Frame:
    """An open link, template or table, and the text read inside it."""

    __slots__ = ("kind", "pieces")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []


def strip_markup(wikitext: str, language: Language, title: str = "") -> str:
    """The text of a page without links, templates, tables, references and tags.

    Line breaks, headings, list marks and emphasis are left for `layout`. Markup that is never closed
    loses its mark and keeps its sentences.

    >>> from gportuguese.wikitext import language_of
    >>> strip_markup("[[Lisboa|A capital]] tem {{fmtn|324|m}}.<ref>Fonte</ref>", language_of("pt"))
    'A capital tem 324 m.'
    """
    for mark in (HOLE, NOTHING, EQUALS, BAR):
        if mark in wikitext:
            wikitext = wikitext.replace(mark, "")
    for _ in range(MAX_PARAMETER_DEPTH):
        if "{{{" not in wikitext:
            break
        wikitext = PARAMETER.sub(lambda match: match[1] or "", wikitext)
    return _Parser("\n" + wikitext, language, title).run()


class _Parser:
    def __init__(self, text: str, language: Language, title: str) -> None:
        self.text, self.language, self.title = text, language, title
        self.stack = [_Frame("root")]
        self.next_mark: dict[str, tuple[int, int]] = {}
        self.num_failed_skips = 0

    def run(self) -> str:
        text, stack = self.text, self.stack
        search = (TOKEN if "-->" in text else TOKEN_WITHOUT_COMMENT_ENDS).search
        position = 0
        while token := search(text, position):
            pieces, start = stack[-1].pieces, token.start()
            if start > position:
                pieces.append(text[position:start])
            position = token.end()
            kind = token.lastgroup
            if kind == "simple":
                target, label = token.group(1, 2)
                if ":" in target or label == "":
                    label = link_words(target, label, self.language)
                elif label is None:
                    label = target.strip()
                if "=" in label:
                    self._show(label)
                else:
                    pieces.append(label)
            elif kind == "call":
                self._call(token["inner"])
            elif kind == "tag":
                position = self._tag(token, position)
            elif kind == "template":
                position = self._open_template(position)
            elif kind == "table":
                position = self._open_table(position)
            elif kind == "link":
                self._open(kind)
            elif kind in ("link_end", "template_end", "table_end"):
                self._close(kind.removesuffix("_end"), position)
            elif kind == "comment":
                position = self._after_comment(position)
            elif kind == "power":
                pieces.append(raised_words(token.group(), token["raised"], pieces))
        stack[-1].pieces.append(text[position:])
        while len(stack) > 1:
            self._give_up()
        text = join_pieces(stack[0].pieces).strip("\n")
        return text.translate(RESTORE) if EQUALS in text or BAR in text else text

    def _show(self, words: str) -> None:
        """Adds words that the page shows; their bars and equals signs split no argument."""
        if len(self.stack) > 1 and ("=" in words or "|" in words):
            words = words.translate(PROTECT)
        self.stack[-1].pieces.append(words)

    def _call(self, inner: str) -> None:
        """Shows the words of the template call `{{inner}}`, its arguments already read."""
        words = template_words(inner, self.language, self.title)
        pieces = self.stack[-1].pieces
        if "/" in words and words[0].isdigit() and pieces and pieces[-1][-1:].isdigit():
            pieces.append(" ")  # 2{{frac|1|2}} is not 21/2
        self._show(words)

    def _open(self, kind: str) -> None:
        if len(self.stack) < _MAX_DEPTH:
            self.stack.append(_Frame(kind))

    def _open_template(self, position: int) -> int:
        """Opens a template, or skips one that leaves no words, such as an infobox."""
        if self.num_failed_skips < _MAX_FAILED_SKIPS and not leaves_words(
            self.text[position : position + 60], self.language
        ):
            if end := end_of_call(self.text, position):
                return end
            self.num_failed_skips += 1  # never closed: its sentences are to be kept
        self._open("template")
        return position

    def _open_table(self, position: int) -> int:
        """Opens a table, or skips one that holds no other."""
        start, end = self._find(r"\n\|\}(?!\})", position)
        if start < end and self._find(r"\{\|", position)[0] > start:
            return end
        self._open("table")
        return position

    def _tag(self, token: re.Match[str], position: int) -> int:
        """Reads a tag; returns where reading goes on."""
        name, tag, pieces = token["name"].lower(), token.group(), self.stack[-1].pieces
        opens = tag[1] != "/" and not tag[:-1].rstrip().endswith("/")
        if name not in TAGS and "=" not in tag:
            pieces.append("<")  # and what follows is read as the text it is
            return token.start() + 1
        if name == "br":
            # in a quotation or a list box, lines that end so are lines to a reader
            is_end = self.stack[-1].kind == "template" and self.text.startswith("\n", position)
            pieces.append("\n\n" if is_end else " ")
        elif name == "span" and "display" in tag and HIDDEN.search(tag):
            start, end = self._find(r"</span\s*>", position)
            if start < end and self._find(r"<span\b", position)[0] > start:
                return end
        elif name in BREAKS:
            pieces.append("\n\n")
            if name == "poem":
                if opens:
                    self._open(name)
                else:
                    self._close(name, position)
        elif name == "table":
            if opens:
                self._open("html table")
            elif tag[1] == "/":
                self._close("html table", position)
        elif name == "sup":
            if opens:
                self._open("sup")
            else:
                self._close("sup", position)
        elif name == "nowiki" and opens:
            start, end = self._find(r"</nowiki\s*>", position)
            if start < end:
                self._show(self.text[position:start])
                return end
        elif (name in FORMULAS or name in CODE) and opens:
            return self._formula_or_code(name, position)
        elif name in DROPPED_ELEMENTS and opens:
            if name in DROPPED_BLOCKS:
                pieces.append("\n\n")
            position = self._after_element(name, position)
        ends = name == "ref" and pieces and pieces[-1][-1:] in _SENTENCE_ENDS
        if ends and self.text[position : position + 1].isalpha():
            pieces.append(" ")  # the footnote's mark stood between the two sentences
        return position

    def _formula_or_code(self, name: str, position: int) -> int:
        """Shows a formula or inline code as text, or else leaves a hole in the sentence."""
        start, end = self._find(rf"</{name}\s*>", position)
        if start == end:
            return position
        source, shown = self.text[position:start], None
        if name in FORMULAS:
            shown = formula_text(source) if name == "math" else chemistry_text(source)
        elif "\n" in source.strip():
            shown = "\n\n"  # a listing is no part of a sentence
        elif nowiki := NOWIKI.fullmatch(source):
            shown = nowiki[1]
        elif name == "code" and UNSHOWABLE.search(source):
            return position  # markup, as {{=}}
        else:
            shown = source.strip()
        if shown is None or (name in CODE and UNSHOWABLE.search(html.unescape(shown))):
            self._show(HOLE)  # shown as they are, the marks would be taken for markup
        else:
            self._show(shown.replace("''", "'" + NOTHING + "'") if name in CODE else shown)
        return end

    def _find(self, mark: str, position: int) -> tuple[int, int]:
        """Start and end of the next match of `mark`; both the text's length if there is none.

        A match further on is remembered, so that all searches together read the text once.
        """
        found = self.next_mark.get(mark, (-1, -1))
        if found[0] < position:
            match = re.compile(mark, re.IGNORECASE).search(self.text, position)
            found = match.span() if match else (len(self.text), len(self.text))
            self.next_mark[mark] = found
        return found

    def _after_comment(self, position: int) -> int:
        """The position after a comment, and after its line if the comment is alone on it."""
        stands_alone = self.text.startswith("\n<!--", position - len("\n<!--"))
        start, end = self._find("-->", position)
        if start == end:
            return self._line_end(position)
        return end + (stands_alone and self.text.startswith("\n", end))

    def _after_element(self, name: str, position: int) -> int:
        """The position after a dropped element's end tag; without one, after its line."""
        start, end = self._find(rf"</{name}\s*>", position)
        if start == end:
            return self._line_end(position) if name == "ref" else position
        # another one opens first: this one was meant to be empty, as <ref name=x/>
        if name == "ref" and self._find(REF.pattern, position)[0] < start:
            return position
        return end

    def _line_end(self, position: int) -> int:
        end = self.text.find("\n", position)
        return len(self.text) if end < 0 else end

    def _close(self, kind: str, position: int) -> None:
        """Closes the innermost frame of `kind`; frames inside it were never closed."""
        if all(frame.kind != kind for frame in reversed(self.stack)):
            # the brackets at the end of [http://example.org [1]] close one each
            if kind == "link" and "[http" in self.text[max(position - _LOOK_BACK, 0) : position]:
                self.stack[-1].pieces.append("]]")
            return
        while self.stack[-1].kind != kind:
            self._give_up()
        inner = join_pieces(self.stack.pop().pieces)
        if kind == "template":
            self._call(inner)
            return
        words = ""  # of a table
        if kind == "link":
            target, bar, label = inner.partition("|")
            words = link_words(target, label if bar else None, self.language)
        elif kind == "sup":
            words = raised_words("<sup>", inner, self.stack[-1].pieces)
        elif kind == "poem":  # each line is a paragraph; nested poems would grow without the test
            is_inner = any(frame.kind == "poem" for frame in self.stack)
            words = inner if is_inner else inner.replace("\n", "\n\n")
        self._show(words)

    def _give_up(self) -> None:
        """Ends the innermost frame, which is never closed; text that may be sentences is kept."""
        frame = self.stack.pop()
        inner = "".join(frame.pieces)
        line = inner.find("\n")
        rest = inner[line:] if line >= 0 else ""
        if frame.kind == "link":
            inner = _SINGLE_END.sub(r"\1", inner)
            target, bar, label = inner.partition("|")
            hidden = target.partition(":")[0].strip().lower() in self.language.hidden_prefixes
            words = rest if hidden else (label if bar else inner)
        elif frame.kind == "template":
            fields = FIELDS.match(inner)
            words = inner[fields.end() :] if fields else rest
        elif frame.kind in ("sup", "poem"):
            words = inner
        else:
            # rows end at the next heading or paragraph
            prose = AFTER_ROWS.search(inner)
            words = inner[prose.start() :] if prose else ""
        self.stack[-1].pieces.append(words)
