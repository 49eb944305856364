"""The patterns by which the parser reads wikitext."""

from __future__ import annotations

import re
import sys

# No part of a token contains what could start the next one, and quantifiers are possessive (from Python
# 3.11), so thousands of unclosed marks take time linear in their length.
_ALL = "*+" if sys.version_info >= (3, 11) else "*"
# Quoted attributes may hold ">".
_ATTRIBUTES = rf"""(?:\s(?:"[^"<]{{0,400}}"|'[^'<]{{0,400}}'|[^<>"']){_ALL})?"""
# Each alternative begins with a literal, so that the search skips other text at C speed. The empty group
# at its end names the alternative.
_TOKEN = rf"""
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
    """
TOKEN = re.compile(_TOKEN, re.VERBOSE)
# at every hyphen, the search would try the end of a comment
TOKEN_WITHOUT_COMMENT_ENDS = re.compile(_TOKEN.replace("| -->(?P<comment_end>)", ""), re.VERBOSE)
# field lines of an infobox that is never closed
FIELDS = re.compile(rf"[^\n]{_ALL}(?:\n\s{_ALL}[|}}!][^\n]{_ALL}){_ALL}")
# not in <code><ref></code>, which is about the tag
REF = re.compile(r"<ref(?<!<code><ref)(?<!<nowiki><ref)(?:\s[^<>]*)?(?<!/)(?<!/ )>", re.IGNORECASE)
AFTER_ROWS = re.compile(r"\n==|\n\n\s*(?=[\w'\"«“(])")
_BRACES = re.compile(r"\{\{|\}\}|<(?i:math|nowiki)\b[^<>]*>[^<]*</(?i:math|nowiki)\s*>")
# a parameter on an article shows its default, as there is no call to set it
PARAMETER = re.compile(r"\{\{\{[\w .-]{1,40}(?:\|([^{}]{0,400}))?\}\}\}")
MAX_PARAMETER_DEPTH = 5
HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
NOWIKI = re.compile(r"\s*<nowiki>(.*?)</nowiki>\s*", re.IGNORECASE | re.DOTALL)
UNSHOWABLE = re.compile(r"\{\{|\}\}|\[\[|\]\]|<(?:/?[a-zA-Z]|!--)")


def end_of_call(text: str, position: int) -> int:
    """The position after the braces that close a call whose name is at `position`; 0 if none do."""
    depth = 1
    while token := _BRACES.search(text, position):
        position = token.end()
        if token[0] in ("{{", "}}"):
            depth += 1 if token[0] == "{{" else -1
            if not depth:
                return position
    return 0
