"""The sources of a corpus: `corpus.sources`, or the one that `corpus.documents` or the dump stands for."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

from gportuguese.config.schema import CorpusConfig, FilterConfig, SourceConfig

DUMP = "dump"
"""The word in `SourceConfig.documents` for the dump of section `dump`."""
_URL = re.compile(r"https?://", re.IGNORECASE)
_HUB_ID = re.compile(
    r"(?:\w[\w.-]{,94})?\w/(?:\w[\w.-]{,94})?\w", re.ASCII
)  # as the Hub names them
_SUFFIXES = re.compile(r"\.(jsonl?|csv|parquet|txt)(\.(gz|bz2|zst))?$", re.IGNORECASE)


def sources_of(corpus: CorpusConfig) -> tuple[SourceConfig, ...]:
    """The sources in order, with names, languages and filters filled in.

    >>> [source.name for source in sources_of(CorpusConfig(documents="texts/news.jsonl.gz"))]
    ['news']
    """
    one = f"./{DUMP}" if corpus.documents == DUMP else corpus.documents  # a folder of that name
    sources = corpus.sources or (SourceConfig(documents=one or DUMP),)
    least = corpus.min_chars
    return tuple(
        replace(
            source,
            name=source.name or _default_name(source),
            language=source.language or (corpus.language if source is sources[0] else None),
            filter=FilterConfig(
                min_chars=least if source.filter.min_chars is None else source.filter.min_chars
            ),
        )
        for source in sources
    )


def uses_dump(corpus: CorpusConfig) -> bool:
    """Whether the dump is one of the sources."""
    return any(source.documents == DUMP for source in sources_of(corpus))


def is_url(documents: str) -> bool:
    """Whether the documents are at a URL."""
    return _URL.match(documents) is not None


def without_secrets(documents: str) -> str:
    """A URL without password and query, which may hold a signature; other documents as they are.

    >>> without_secrets("https://anna:secret@host/texts.jsonl?signature=1")
    'https://host/texts.jsonl'
    """
    if not is_url(documents):
        return documents
    parts = urlsplit(documents)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_hub_id(documents: str) -> bool:
    """Whether the documents may be a data set on the Hub; a file of that name comes first.

    >>> is_hub_id("wikimedia/wikipedia"), is_hub_id("texts/news.jsonl"), is_hub_id("./texts/news")
    (True, False, False)
    """
    is_name = _HUB_ID.fullmatch(documents) and not re.search(r"--|\.\.|\.git$", documents)
    return bool(is_name) and not _SUFFIXES.search(documents)


def _default_name(source: SourceConfig) -> str:
    """The last part of the path, URL or id without its suffix, then the subset."""
    if source.documents == DUMP:
        return DUMP
    path = re.sub(r"[?#].*", "", source.documents) if is_url(source.documents) else source.documents
    last = _SUFFIXES.sub("", path.rstrip("/").rpartition("/")[2])
    parts = [last, source.subset or ""]
    words = [re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts]
    return "-".join(word for word in words if word) or "documents"
