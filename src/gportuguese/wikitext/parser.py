"""Wikitext without its markup: one pass over its tokens with a stack, linear in the page's length."""

from __future__ import annotations

import functools
import re
import sys

from gportuguese.wikitext.formulas import chemistry_text, formula_text
from gportuguese.wikitext.inline import link_words, raised_words
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.marks import HOLE, NOTHING
from gportuguese.wikitext.tags import BREAKS, CODE, DROPPED_BLOCKS, DROPPED_ELEMENTS, FORMULAS, TAGS
from gportuguese.wikitext.templates import leaves_words, template_words

# No part of a token crosses what could start the next one, and what was taken is not given back
# (possessive, from Python 3.11): thousands of unclosed marks cost no more than their length.
_ALL = "*+" if sys.version_info >= (3, 11) else "*"
# Quoted attributes may hold ">".
_ATTRIBUTES = rf"""(?:\s(?:"[^"<]{{0,400}}"|'[^'<]{{0,400}}'|[^<>"']){_ALL})?"""
# Each alternative begins with a literal, so that the search for the next token skips at C speed over
# everything else; the empty group at its end says which one it was.
_TOKEN = re.compile(
    rf"""
      \[\[(?P<target>[^\[\]{{}}<>|\n]{_ALL})(?:\|(?P<label>[^\[\]{{}}<>|\n]{_ALL}))?\]\](?P<simple>)
    | \{{\{{(?P<inner>[^\[\]{{}}<>]{_ALL})\}}\}}(?!\}})(?P<call>)
    | \[\[(?P<link>)
    | \]\](?!\](?!\]))(?P<link_end>)
    | \{{\{{(?P<template>)
    | \}}\}}(?P<template_end>)
    | \{{\|(?<=[\n:*\#\ ]\{{\|)(?P<table>)
    | \|\}}(?!\}})(?<=[\n\ ]\|\}})(?P<table_end>)
    | <!--(?P<comment>)
    | -->(?P<comment_end>)
    | <su[bp]>(?P<raised>[^<>\[\]{{}}\n]{{0,40}})</su[bp]>(?P<power>)
    | </?(?P<name>[A-Za-z][A-Za-z0-9]{{0,20}})(?:{_ATTRIBUTES}|\b[^<>]{{0,400}})/?>(?P<tag>)
    """,
    re.VERBOSE,
)
# the field lines of an infobox that is never closed
_FIELDS = re.compile(rf"[^\n]{_ALL}(?:\n\s{_ALL}[|}}!][^\n]{_ALL}){_ALL}")
# <code><ref></code> speaks of the tag
_REF = re.compile(r"<ref(?<!<code><ref)(?<!<nowiki><ref)(?:\s[^<>]*)?(?<!/)(?<!/ )>", re.IGNORECASE)
_AFTER_ROWS = re.compile(r"\n==|\n\n\s*(?=[\w'\"«“(])")
_BRACES = re.compile(r"\{\{|\}\}")
_MAX_FAILED_SKIPS = 3  # each reads to the end of the page
_LOOK_BACK = 300
_MAX_DEPTH = 60  # MediaWiki stops at 40; deeper opens are dropped, so that cost stays linear


@functools.cache
def _pattern(mark: str) -> re.Pattern[str]:
    return re.compile(mark, re.IGNORECASE)


class _Frame:
    """An open link, template or table, and what was read inside it."""

    __slots__ = ("kind", "pieces")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []


def strip_markup(wikitext: str, language: Language, title: str = "") -> str:
    """The text of a page without links, templates, tables, references and tags.

    Line structure, headings, lists and emphasis marks stay for `layout`. What is opened and never
    closed loses its mark and keeps its sentences.

    >>> from gportuguese.wikitext import language_of
    >>> strip_markup("[[Lisboa|A capital]] tem {{fmtn|324|m}}.<ref>Fonte</ref>", language_of("pt"))
    'A capital tem 324 m.'
    """
    if HOLE in wikitext or NOTHING in wikitext:  # no XML holds them
        wikitext = wikitext.replace(HOLE, "").replace(NOTHING, "")
    return _Parser("\n" + wikitext, language, title).run()


class _Parser:
    def __init__(self, text: str, language: Language, title: str) -> None:
        self.text, self.language, self.title = text, language, title
        self.stack = [_Frame("root")]
        self.next_mark: dict[str, tuple[int, int]] = {}
        self.num_failed_skips = 0

    def run(self) -> str:
        text, search, stack = self.text, _TOKEN.search, self.stack
        position = 0
        while token := search(text, position):
            pieces = stack[-1].pieces
            if token.start() > position:
                pieces.append(text[position : token.start()])
            position = token.end()
            kind = token.lastgroup
            if kind == "simple":
                target, label = token.group(1, 2)
                if label and ":" not in target:  # nearly every link
                    pieces.append(label)
                else:
                    pieces.append(link_words(target, label, self.language))
            elif kind == "call":
                pieces.append(self._call(token["inner"]))
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
        return _joined(stack[0].pieces).strip("\n")

    def _call(self, inner: str) -> str:
        """What the template call `{{inner}}` shows, its arguments already read."""
        return template_words(inner, self.language, self.title)

    def _open(self, kind: str) -> None:
        if len(self.stack) < _MAX_DEPTH:
            self.stack.append(_Frame(kind))

    def _open_template(self, position: int) -> int:
        """Opens a template, or skips one that leaves no words, such as an infobox."""
        if self.num_failed_skips < _MAX_FAILED_SKIPS and not leaves_words(
            self.text[position : position + 60], self.language
        ):
            depth, end = 1, position
            while brace := _BRACES.search(self.text, end):
                end = brace.end()
                depth += 1 if brace.group() == "{{" else -1
                if not depth:
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
            pieces.append(" ")
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
                pieces.append(self.text[position:start])
                return end
        elif (name in FORMULAS or name in CODE) and opens:
            return self._formula_or_code(name, position)
        elif name in DROPPED_ELEMENTS and opens:
            if name in DROPPED_BLOCKS:
                pieces.append("\n\n")
            return self._after_element(name, position)
        return position

    def _formula_or_code(self, name: str, position: int) -> int:
        """Shows a formula or a line of code that reads as text; else the sentence has a hole."""
        start, end = self._find(rf"</{name}\s*>", position)
        if start == end:
            return position
        source, shown = self.text[position:start], None
        if name in FORMULAS:
            shown = formula_text(source) if name == "math" else chemistry_text(source)
        elif "\n" not in source.strip():
            # code may hold marks that mean something here, as {{=}} or <nowiki>
            if name == "code" and ("{{" in source or "[[" in source or "<" in source):
                return position
            shown = source.strip().replace("''", "'" + NOTHING + "'")
        if shown is None and name in CODE:
            shown = "\n\n"  # a listing is no part of a sentence
        self.stack[-1].pieces.append(HOLE if shown is None else shown)
        return end

    def _find(self, mark: str, position: int) -> tuple[int, int]:
        """Start and end of the next `mark`, a pattern; both the text's length if there is none.

        One that was found further on is remembered, so that all finds together read the text once.
        """
        found = self.next_mark.get(mark, (-1, -1))
        if found[0] < position:
            match = _pattern(mark).search(self.text, position)
            found = match.span() if match else (len(self.text), len(self.text))
            self.next_mark[mark] = found
        return found

    def _after_comment(self, position: int) -> int:
        """Behind the end of a comment, and of its line if it stands alone there."""
        stands_alone = self.text.startswith("\n<!--", position - len("\n<!--"))
        start, end = self._find("-->", position)
        if start == end:
            return self._line_end(position)
        return end + (stands_alone and self.text.startswith("\n", end))

    def _after_element(self, name: str, position: int) -> int:
        """Behind the end tag of a dropped element; if it has none, behind its line."""
        start, end = self._find(rf"</{name}\s*>", position)
        if start == end:
            return self._line_end(position) if name == "ref" else position
        # another opened before: this one was meant to stand alone, as <ref name=x/>
        if name == "ref" and self._find(_REF.pattern, position)[0] < start:
            return position
        return end

    def _line_end(self, position: int) -> int:
        end = self.text.find("\n", position)
        return len(self.text) if end < 0 else end

    def _close(self, kind: str, position: int) -> None:
        """Ends the innermost open frame of `kind`; those inside it were never closed."""
        if all(frame.kind != kind for frame in reversed(self.stack)):
            # [http://example.org [1]] ends with two brackets that close one each
            if kind == "link" and "[http" in self.text[max(position - _LOOK_BACK, 0) : position]:
                self.stack[-1].pieces.append("]]")
            return
        while self.stack[-1].kind != kind:
            self._give_up()
        inner = _joined(self.stack.pop().pieces)
        if kind == "link":
            target, bar, label = inner.partition("|")
            words = link_words(target, label if bar else None, self.language)
        elif kind == "sup":
            words = raised_words("<sup>", inner, self.stack[-1].pieces)
        elif kind == "poem":  # each line is a line of its own; once, or nested ones would grow
            is_inner = any(frame.kind == "poem" for frame in self.stack)
            words = inner if is_inner else inner.replace("\n", "\n\n")
        else:
            words = self._call(inner) if kind == "template" else ""
        self.stack[-1].pieces.append(words)

    def _give_up(self) -> None:
        """Takes the innermost frame for unclosed: what can be sentences stays."""
        frame = self.stack.pop()
        inner = "".join(frame.pieces)
        line = inner.find("\n")
        rest = inner[line:] if line >= 0 else ""
        if frame.kind == "link":
            target, bar, label = inner.partition("|")
            hidden = target.partition(":")[0].strip().lower() in self.language.hidden_prefixes
            words = rest if hidden else (label if bar else inner)
        elif frame.kind == "template":
            fields = _FIELDS.match(inner)
            words = inner[fields.end() :] if fields else rest
        elif frame.kind in ("sup", "poem"):
            words = inner
        else:
            # rows to the next heading, or to a paragraph that begins with a letter
            prose = _AFTER_ROWS.search(inner)
            words = inner[prose.start() :] if prose else ""
        self.stack[-1].pieces.append(words)


def _joined(pieces: list[str]) -> str:
    """The pieces as one text; quotes of two pieces stay apart.

    So ''{{x}}'' and ''X''<sub>''n''</sub> do not put four quotes side by side.
    """
    text = NOTHING.join(pieces)
    if f"'{NOTHING}" not in text:
        return text.replace(NOTHING, "")
    while NOTHING * 2 in text:
        text = text.replace(NOTHING * 2, NOTHING)
    return (
        text.replace(f"'{NOTHING}'", f"'{HOLE}'")
        .replace(NOTHING, "")
        .replace(f"'{HOLE}'", f"'{NOTHING}'")
    )
