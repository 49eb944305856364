"""Lists the most frequent headings, templates and leftovers of a dump, for a language's table."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

from gportuguese.dump import read_pages
from gportuguese.dump.reader import RawPage, read_header
from gportuguese.wikitext import HOLE, LEFTOVER, Language, language_of, wikitext_to_text
from gportuguese.wikitext.languages import has_table
from gportuguese.wikitext.names import template_name
from gportuguese.wikitext.templates import is_decided

_HEADING = re.compile(r"^==([^=\n].*?)==\s*$", re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{\s*([^|{}\[\]<>\n#:]{1,60}?)\s*(?=[|}\n])")
_AROUND = 30  # characters on both sides of a leftover


def survey(path: Path, num_pages: int, num_names: int) -> str:
    """A report on the first articles of a dump, for authors of its language's table.

    It lists level-2 headings by number of pages (end matter is marked), templates that no table decides,
    and markup left after cleaning.
    """
    header = read_header(path)
    code, language = header.language, language_of(header.language, header.namespaces)
    pages = list(
        islice((page for page in read_pages(path) if _is_article(page, language)), num_pages)
    )
    headings, templates, leftovers = Counter[str](), Counter[str](), Counter[str]()
    for page in pages:
        # once a page, and in its order: of equal counts the first is listed first
        headings.update(dict.fromkeys(map(str.strip, _HEADING.findall(page.wikitext)), 1))
        names = (
            template_name(name, language.template_prefixes)
            for name in _TEMPLATE.findall(page.wikitext)
        )
        templates.update(dict.fromkeys(names, 1))
        text = wikitext_to_text(page.wikitext, page.title, language)
        for pattern in (LEFTOVER, HOLE):
            leftovers.update(
                text[max(match.start() - _AROUND, 0) : match.end() + _AROUND].replace("\n", " ")
                for match in pattern.finditer(text)
            )
    undecided = Counter({n: count for n, count in templates.items() if not is_decided(n, language)})
    table = f"languages/{code}.yaml" if has_table(code) else "none of its own, English alone"
    marked = Counter(
        {
            f"{name} (end matter)" if language.is_tail(name) else name: count
            for name, count in headings.items()
        }
    )
    return "\n".join([
        f"{path.name}: {len(pages):,} articles, language {code}, table: {table}",
        f"links that show nothing begin with: {', '.join(sorted(language.hidden_prefixes))}",
        *_listed("headings, by the pages that have them", marked, num_names),
        *_listed("templates that no table decides on", undecided, num_names),
        *_listed("left after cleaning", leftovers, num_names),
    ])  # fmt: skip


def _is_article(page: RawPage, language: Language) -> bool:
    return not (page.namespace or page.is_redirect or language.redirect.match(page.wikitext))


def _listed(title: str, counts: Counter[str], num_names: int) -> list[str]:
    rows = [f"{count:8,}  {name}" for name, count in counts.most_common(num_names)]
    return ["", f"{title}:", *(rows or ["    none"])]
