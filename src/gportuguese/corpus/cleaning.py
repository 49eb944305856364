"""Turns a page of the dump into a document, or drops it with a reason. Pure, and light to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gportuguese.config import CorpusConfig
from gportuguese.dump.reader import RawPage
from gportuguese.wikitext import Language, read_wikitext


@dataclass(frozen=True)
class Document:
    """A clean text and where it came from."""

    id: str
    title: str
    text: str
    dropped_sentences: int = field(default=0, repr=False)
    """Sentences left out because a formula in them cannot be written as text."""


@dataclass(frozen=True)
class Dropped:
    """A page that was dropped, and why."""

    id: str
    title: str
    reason: str
    shared: str | None = None
    """The words that it shares with a text of `corpus.exclude`."""


# expanded templates are seldom longer than their calls; a page that could grow past the minimum length
# by more than half is treated as too short without expanding it
_MOST_GROWTH = 1.5


def is_wanted(namespace: int, is_redirect: bool) -> bool:
    """Whether `clean_page` needs the page's wikitext."""
    return namespace == 0 and not is_redirect


def clean_page(
    page: RawPage,
    section: CorpusConfig,
    language: Language,
    expanded: Callable[[str, str], str] | None = None,
) -> Document | Dropped:
    """The document of a page, or the reason for dropping it.

    Reasons, in the order they are checked: other namespace, redirect, disambiguation, long title,
    too short. `expanded(wikitext, title)` expands the templates of pages that pass.

    >>> from gportuguese.wikitext import language_of
    >>> page = RawPage(1, "Fado", 0, False, "'''Fado''' é [[música]].")
    >>> clean_page(page, CorpusConfig(min_chars=9), language_of("pt"))
    Document(id='1', title='Fado', text='Fado é música.')
    """

    def dropped(reason: str) -> Dropped:
        return Dropped(str(page.id), page.title, reason)

    if page.namespace != 0:
        return dropped("other namespace")
    if page.is_redirect or language.redirect.match(page.wikitext):
        return dropped("redirect")
    if language.disambiguation.search(page.wikitext) or language.disambiguation_title.search(
        page.title
    ):
        return dropped("disambiguation")
    if len(page.title) > section.max_title_chars:
        return dropped("long title")
    if _MOST_GROWTH * len(page.wikitext) < section.min_chars:
        return dropped("too short")
    wikitext = expanded(page.wikitext, page.title) if expanded else page.wikitext
    text, dropped_sentences = read_wikitext(wikitext, page.title, language)
    if len(text) < section.min_chars:
        return dropped("too short")
    return Document(str(page.id), page.title, text, dropped_sentences)
