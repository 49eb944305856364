"""Parses wikitext into template calls and parameters, pairing braces as MediaWiki's preprocessor does.

It makes one pass with a stack; time is linear in the length of the text, whatever is left open.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gportuguese.wikitext.patterns import end_of_call

# Extensions whose content MediaWiki does not parse. <poem> is missing, as its content is wikitext.
_OPAQUE = (
    "categorytree|ce|chem|gallery|graph|hiero|imagemap|inputbox|mapframe|maplink|math|nowiki|pre|ref"
    "|score|section|source|syntaxhighlight|templatedata|templatestyles|timeline"
)
# Each alternative begins with a literal, so that the search skips other text at C speed.
_OPENS = rf"\{{\{{+|<!--|<(?i:{_OPAQUE})(?=[\s/>])[^<>]*>"
_TOKENS = {
    "": re.compile(_OPENS),
    # the equals signs of a heading in an argument give it no name
    "name": re.compile(rf"{_OPENS}|\}}\}}+|\[\[+|\|"),
    "argument": re.compile(
        rf"{_OPENS}|\}}\}}+|\[\[+|\||==(?<=\n==)[^\n{{}}\[\]|<]*==[ \t]*(?=\n)|="
    ),
    "link": re.compile(rf"{_OPENS}|\]\]+|\[\[+"),
}
_NAME = re.compile(r"([^|{}\[\]<>#:]{1,300})(?=[|}])")
_MAX_FAILED = 3  # skipped calls that never end: each search reads to the end of the page
_TAG_NAME = re.compile(r"<(\w+)")
_MAX_DEPTH = 100  # MediaWiki's limit for expansion; deeper braces are text
# unclosed elements reach to the end, so nothing is searched twice
_KEPT = r"<nowiki>.*?(?:</nowiki>|\Z)|<!--.*?(?:-->|\Z)"
_FLAGS = re.IGNORECASE | re.DOTALL
_ONLY_INCLUDE = re.compile(rf"{_KEPT}|<onlyinclude>(.*?)(?:</onlyinclude\s*>|\Z)", _FLAGS)
_NO_INCLUDE = re.compile(
    rf"({_KEPT})|<noinclude(?:\s[^<>]*)?(?:/>|>.*?(?:</noinclude\s*>|\Z))"
    r"|</?includeonly\s*/?>|</noinclude\s*>|</?onlyinclude\s*>",
    _FLAGS,
)
_LINK = re.compile(r"\[\[([^\[\]|#\n]+)")
_REST_OF_LINE = re.compile(r"[ \t]*\n")
_COMMENT = re.compile(_KEPT, _FLAGS)


class Call:
    """`{{name|part|...}}` between two places of its text."""

    __slots__ = ("at_line_start", "end", "name", "parts", "start")

    def __init__(self, parts: list[Part], start: int, end: int, at_line_start: bool) -> None:
        self.name, self.parts = parts[0].value, parts[1:]
        self.start, self.end, self.at_line_start = start, end, at_line_start


class Parameter:
    """`{{{name|default}}}`; the default is None where there is no bar."""

    __slots__ = ("default", "name")

    def __init__(self, parts: list[Part]) -> None:
        self.name = parts[0].value
        self.default = parts[1].whole() if len(parts) > 1 else None


Nodes = list["str | Call | Parameter"]


@dataclass(slots=True)
class Part:
    """The text between two bars: `name=value`, or a value alone."""

    name: Nodes | None
    value: Nodes

    def whole(self) -> Nodes:
        """Name and value together."""
        return self.value if self.name is None else [*self.name, "=", *self.value]


class _Open:
    """Open braces or brackets, and the parts read so far."""

    __slots__ = ("count", "mark", "parts", "start")

    def __init__(self, mark: str, count: int, start: int, first: Nodes | None = None) -> None:
        self.mark, self.count, self.start = mark, count, start
        self.parts = [Part(None, [] if first is None else first)]

    @property
    def state(self) -> str:
        """The key in `_TOKENS` of the tokens that matter now."""
        if self.mark == "[":
            return "link"
        return "argument" if len(self.parts) > 1 and self.parts[-1].name is None else "name"

    def as_text(self) -> Nodes:
        """The text read so far, for marks that are never closed."""
        nodes: Nodes = [self.mark * self.count]
        for number, part in enumerate(self.parts):
            nodes += ["|", *part.whole()] if number else part.whole()
        return nodes


def transcluded(wikitext: str) -> str:
    """The part of a template page that its callers include.

    >>> transcluded("<noinclude>Ajuda</noinclude>{{{1}}}<includeonly> km</includeonly>")
    '{{{1}}} km'
    """
    if "<onlyinclude>" in wikitext.lower():
        matches = _ONLY_INCLUDE.finditer(wikitext)
        wikitext = "".join(match[1] or "" for match in matches)
    wikitext = _NO_INCLUDE.sub(lambda match: match[1] or "", wikitext)
    return _without_comments(wikitext) if "<!--" in wikitext else wikitext


def _without_comments(text: str) -> str:
    """The text without comments, and without lines that hold nothing else."""
    pieces: list[str] = []
    position, is_blank = 0, False  # whether the line so far holds nothing but comments and spaces
    for match in _COMMENT.finditer(text):
        before = text[position : match.start()]
        line = before.rpartition("\n")[2]
        is_blank = not line.strip(" \t") and (is_blank or "\n" in before)
        position = match.end()
        if match[0].startswith("<!--"):
            pieces.append(before)
            rest = _REST_OF_LINE.match(text, position)
            if is_blank and rest:
                pieces[-1] = before[: len(before) - len(line)]
                position = rest.end()
        else:
            pieces.append(before + match[0])
            is_blank = False
    return "".join([*pieces, text[position:]])


def parse(text: str, is_skipped: Callable[[str], bool] | None = None) -> Nodes:
    """The text as calls, parameters and strings, without comments; opaque extensions are strings.

    A top-level call with `is_skipped(name)` is kept as a string and not parsed.

    >>> [call] = parse("{{a|[[b|c]]|d=e}}")
    >>> [part.whole() for part in call.parts]
    [['[[', 'b|c', ']]'], ['d', '=', 'e']]
    """
    root: Nodes = []
    stack: list[_Open] = []
    nodes, tokens = root, _TOKENS[""]
    closing: dict[str, int] = {}
    position = num_failed = 0
    while token := tokens.search(text, position):
        start, mark = token.start(), token.group()
        if start > position:
            nodes.append(text[position:start])
        position = token.end()
        if mark == "{{" and is_skipped and not stack and num_failed < _MAX_FAILED:
            name = _NAME.match(text, position)
            if name and is_skipped(name[1]):
                end = end_of_call(text, position)
                if end:
                    nodes.append(text[start:end])
                    position = end
                    continue
                num_failed += 1
        if mark[0] == "<":
            end = _end_of_opaque(text, mark, position, closing)
            if mark != "<!--":
                nodes.append(text[start:end])
            position = end
        elif mark == "|":
            stack[-1].parts.append(Part(None, []))
        elif mark == "=":
            part = stack[-1].parts[-1]
            part.name, part.value = part.value, []
        elif mark[0] == "=" or (mark[0] in "{[" and len(stack) >= _MAX_DEPTH):
            nodes.append(mark)
            continue
        elif mark[0] in "{[":
            stack.append(_Open(mark[0], len(mark), start))
        else:
            position = _close(text, stack, root, start, len(mark))
        nodes = stack[-1].parts[-1].value if stack else root
        tokens = _TOKENS[stack[-1].state if stack else ""]
    if position < len(text):
        nodes.append(text[position:])
    for opened in stack:
        root += opened.as_text()
    return root


def _close(text: str, stack: list[_Open], root: Nodes, start: int, count: int) -> int:
    """Pairs a run of closing marks with the innermost open ones; returns the end of the paired ones."""
    opened = stack.pop()
    matched = min(count, opened.count, 2 if opened.mark == "[" else 3)
    first, end = opened.start + opened.count - matched, start + matched
    left = opened.count - matched
    if opened.mark == "[":
        opened.count = 2
        closed: Nodes = [*opened.as_text(), "]]"]
    elif matched == 3:
        closed = [Parameter(opened.parts)]
    else:
        closed = [Call(opened.parts, first, end, first > 0 and text[first - 1] == "\n")]
    if left >= 2:
        stack.append(_Open(opened.mark, left, opened.start, closed))
    else:
        outer = stack[-1].parts[-1].value if stack else root
        outer += [opened.mark, *closed] if left else closed
    return end


def _end_of_opaque(text: str, mark: str, position: int, closing: dict[str, int]) -> int:
    """The position after a comment or extension. An unclosed comment reaches to the end of the text.

    `closing` remembers ends further on, so that all searches together read the text once.
    """
    if mark.endswith("/>"):
        return position
    name = "!" if mark == "<!--" else _TAG_NAME.match(mark)[1].lower()  # type: ignore[index]
    if closing.get(name, -1) < position:
        pattern = "-->" if name == "!" else rf"</{name}\s*>"
        match = re.compile(pattern, re.IGNORECASE).search(text, position)
        closing[name] = match.end() if match else len(text) + 1
    if closing[name] <= len(text):
        return closing[name]
    return len(text) if name == "!" else position


def link_target(wikitext: str) -> str:
    """The target of the first link: where a redirect page leads."""
    match = _LINK.search(wikitext)
    return match[1].strip().lstrip(":") if match else ""
