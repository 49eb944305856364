"""Ten minutes of broken wikitext, with and without expansion: nothing raises, takes long or leaves markup."""

import random
import re
import time

import pytest

from gportuguese.config import asset_path
from gportuguese.corpus.definitions import NAMESPACE, definition_of
from gportuguese.dump import read_pages
from gportuguese.wikitext import language_of, wikitext_to_text
from gportuguese.wikitext.definitions import Templates
from gportuguese.wikitext.expansion import expand
from tests.test_wikitext import HOSTILE, MARKS

SECONDS = 600
LEFT = re.compile(r"\[\[|\]\]|\{\{|\}\}|<ref\b")
LANGUAGES = [language_of(code) for code in ("pt", "en", "es", "fr", "de", "it")]
MORE_MARKS = [
    *MARKS,
    "{{{1|",
    "}}}",
    "<code>",
    "</code>",
    "<math>",
    "</math>",
    "-{",
    "}-",
    "{{frac|1|",
    "{{#if:",
    "=",
    "&lt;br&gt;",
]


def broken(pages, chance):
    """A real page with pieces of it cut, doubled and moved, and marks put anywhere."""
    text = chance.choice(pages)
    for _ in range(chance.randrange(1, 12)):
        start, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        piece = text[start:end][: chance.choice((1, 10, 300))]
        edit = chance.randrange(4)
        if edit == 0:
            text = text[:start] + text[start + len(piece) :]
        elif edit == 1:
            text = text[:end] + piece * chance.randrange(1, 4) + text[end:]
        elif edit == 2:
            text = (
                text[:start] + chance.choice(MORE_MARKS) * chance.choice((1, 1, 200)) + text[start:]
            )
        else:
            text = text[:start] + chance.choice(list(HOSTILE.values()))[:2000] + text[start:]
    return text


def check(seconds, seed):
    """How many pages were tried in that time."""
    dump = list(read_pages(asset_path("demo-ptwiki.xml.bz2")))
    pages = [page.wikitext for page in dump if page.wikitext]
    prefixes = LANGUAGES[0].template_prefixes
    found = (definition_of(page, prefixes) for page in dump if page.namespace == NAMESPACE)
    bodies = {name: (name, kind, body) for name, kind, body in found if kind != "redirect"}
    chance, tried, stop = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < stop:
        page, language = broken(pages, chance), chance.choice(LANGUAGES)
        start = time.process_time()
        expanded, _ = expand(page, "T", Templates(bodies.get, language))
        texts = [wikitext_to_text(wikitext, "T", language) for wikitext in (page, expanded)]
        took = time.process_time() - start
        tried += 1
        assert took < 4, (took, len(page), page)
        for text in texts:
            assert not LEFT.search(text), (language.code, page)
            text.encode()
    return tried


def test_a_second_of_broken_pages():
    assert check(1.0, seed=1) > 20


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_ten_minutes_of_broken_pages():
    assert check(SECONDS, seed=int(time.time())) > 1000
