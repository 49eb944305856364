"""Expands template calls by the dump's own definitions, as MediaWiki does, with bounded depth and size.

A call is expanded exactly or left as it is for the tables of names. Calls that need a Lua module, an
unknown function, or more than the limits allow are left as they are.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass

from gportuguese.wikitext.definitions import Definition, Templates, is_box
from gportuguese.wikitext.functions import ERROR, FUNCTIONS, Unknown, magic_word
from gportuguese.wikitext.languages import Language
from gportuguese.wikitext.preprocessor import Call, Nodes, Parameter, Part, parse

# MediaWiki allows 40 nested templates and 2 MB per page; a call that leaves words in a sentence needs
# a hundredth of that
_MAX_TEMPLATES, _MAX_DEPTH = 40, 80
_CALL_CHARS, _CALL_STEPS = 100_000, 10_000
_PAGE_CHARS, _PAGE_STEPS = 2_000_000, 500_000

_NEW_LINE = re.compile(r"\{\||[:;#*]")
_CALL = re.compile(r"\{\{(?<!\{\{\{)(?!\{)")
_UNSET = re.compile(r"\{\{\{[^{}]*\}\}\}")


class OverLimit(Exception):
    """A call went over a limit."""


class _Frame:
    """The template that is being expanded; the page if it has no definition."""

    __slots__ = ("arguments", "definition", "depth", "parent", "values")

    def __init__(self, parent: _Frame | None = None, definition: Definition | None = None) -> None:
        self.parent, self.definition = parent, definition
        self.depth: int = parent.depth + 1 if parent else 0
        self.arguments: dict[str, Part] = {}
        self.values: dict[str, str] = {}

    def is_inside(self, name: str) -> bool:
        frame: _Frame | None = self
        while frame is not None and frame.definition is not None:
            if frame.definition.name == name:
                return True
            frame = frame.parent
        return False


def expand(wikitext: str, title: str, templates: Templates) -> tuple[str, Counter[str]]:
    """The page with its calls expanded, and how often each template went over a limit, by name."""
    if "{{" not in wikitext:
        return wikitext, Counter()
    return _Expansion(wikitext, title, templates).run()


class _Expansion:
    """Expands one page and counts the steps and characters it has used."""

    def __init__(self, wikitext: str, title: str, templates: Templates) -> None:
        self.wikitext, self.title, self.templates = wikitext, title, templates
        self.page = _Frame()
        self.chars = self.steps = self.depth = 0
        self.max_chars, self.max_steps = 0, 0
        self.over_limit: Counter[str] = Counter()

    def run(self) -> tuple[str, Counter[str]]:
        pieces, position = [], 0
        for node in parse(self.wikitext, self.templates.is_skipped):
            if isinstance(node, Call):
                pieces += [self.wikitext[position : node.start], self._of_page(node)]
                position = node.end
        pieces.append(self.wikitext[position:])
        return "".join(pieces), self.over_limit

    def _of_page(self, call: Call) -> str:
        """The expansion of a call on the page; after going over a limit, a name is not tried again."""
        source = self.wikitext[call.start : call.end]
        name = "".join(node for node in call.name if isinstance(node, str)).strip()
        if name in self.over_limit or self.chars > _PAGE_CHARS or self.steps > _PAGE_STEPS:
            self.over_limit[name] += 1
            return source
        self.max_chars, self.max_steps = self.chars + _CALL_CHARS, self.steps + _CALL_STEPS
        self.depth = 0
        try:
            text = self.call(call, self.page)
        except OverLimit:
            self.over_limit[name] += 1
            return source
        if ERROR.search(text):
            return source
        return _UNSET.sub("", text) if "{{{" in text else text

    def text_of(self, nodes: Nodes, frame: _Frame) -> str:
        """The expansion of nodes in a frame."""
        if len(nodes) == 1 and isinstance(nodes[0], str):
            return nodes[0]
        self.depth += 1
        self.steps += len(nodes)
        pieces = []
        for node in nodes:
            if isinstance(node, str):
                text = node
            elif self.depth > _MAX_DEPTH or self.steps > self.max_steps:
                raise OverLimit
            elif isinstance(node, Call):
                text = self.call(node, frame)
            else:
                text = self.parameter(node, frame)
            self.chars += len(text)
            if self.chars > self.max_chars:
                raise OverLimit
            pieces.append(text)
        self.depth -= 1
        return "".join(pieces)

    def parameter(self, node: Parameter, frame: _Frame) -> str:
        name = self.text_of(node.name, frame).strip()
        value = self._value(name, frame)
        if value is not None:
            return value
        if node.default is not None:
            return self.text_of(node.default, frame)
        return f"{{{{{{{name}}}}}}}"

    def _value(self, name: str, frame: _Frame) -> str | None:
        """An argument of the frame's call; named ones lose the spaces around them."""
        value = frame.values.get(name)
        if value is None and (part := frame.arguments.get(name)) is not None:
            assert frame.parent is not None
            value = self.text_of(part.value, frame.parent)
            if part.name is not None:
                value = value.strip()
            frame.values[name] = value
        return value

    def call(self, node: Call, frame: _Frame) -> str:
        """The expansion of a call; the call itself if it is on the page and cannot be expanded."""
        if frame.definition is not None:
            return self._call(node, frame)
        depth = self.depth
        try:
            return self._call(node, frame)
        except Unknown:
            self.depth = depth
            return self.wikitext[node.start : node.end]

    def _call(self, node: Call, frame: _Frame) -> str:
        head = self.text_of(node.name, frame).strip()
        if head[:10].lower() == "safesubst:":
            head = head[10:].lstrip()
        if not node.parts and (value := magic_word(head, self.title)) is not None:
            return value
        function, colon, first = head.partition(":")
        if colon and (known := FUNCTIONS.get(function.lower())):
            parts = [Part(None, [first]), *node.parts]
            result = known(_Arguments(self, frame, parts))
            if result is None:
                raise Unknown
            return _on_its_line(result, node)
        if head.startswith("#"):
            raise Unknown
        found = self.templates.find(head)
        if found is None:
            raise Unknown
        if isinstance(found, str):
            return self._table_call(found, node, frame)
        if found.kind == "lua":
            raise Unknown
        if found.kind == "box" or frame.is_inside(found.name):
            return ""
        if frame.depth >= _MAX_TEMPLATES:
            raise OverLimit
        return self._template(found, node, frame)

    def _template(self, definition: Definition, node: Call, frame: _Frame) -> str:
        inner = _Frame(frame, definition)
        place = 0
        for part in node.parts:
            if part.name is None:
                place += 1
                inner.arguments[str(place)] = part
            else:
                inner.arguments[self.text_of(part.name, frame).strip()] = part
        text = self.text_of(definition.nodes, inner)
        if is_box(text):
            return ""
        return _on_its_line(text, node)

    def _table_call(self, name: str, node: Call, frame: _Frame) -> str:
        """A call for the tables, with its arguments expanded."""
        texts = [self.text_of(part.whole(), frame) for part in node.parts]
        # "=" in a value would make it a named argument; then every argument gets its number as name
        if any(
            part.name is None and "=" in text for part, text in zip(node.parts, texts, strict=True)
        ):
            place = itertools.count(1)
            texts = [
                text if part.name is not None else f"{next(place)}={text}"
                for part, text in zip(node.parts, texts, strict=True)
            ]
        return f"{{{{{'|'.join((name, *texts))}}}}}"


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a parser function in a frame."""

    expansion: _Expansion
    frame: _Frame
    parts: list[Part]

    @property
    def language(self) -> Language:
        return self.expansion.templates.language

    def __getitem__(self, place: int) -> str:
        return self.text_of(self.parts[place].whole()) if place < len(self.parts) else ""

    def text_of(self, nodes: Nodes) -> str:
        return self.expansion.text_of(nodes, self.frame).strip()

    def known(self, nodes: Nodes) -> str:
        text = self.text_of(nodes)
        if _CALL.search(text):
            raise Unknown
        return text


def _on_its_line(text: str, node: Call) -> str:
    """Lists and tables begin a line even where their call does not (as MediaWiki does)."""
    return f"\n{text}" if not node.at_line_start and _NEW_LINE.match(text) else text
