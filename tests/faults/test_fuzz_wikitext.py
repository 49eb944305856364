"""Ten minutes of broken wikitext: nothing raises, nothing takes long, no markup is left."""

import random
import re
import time

import pytest

from gportuguese.config import asset_path
from gportuguese.dump import read_pages
from gportuguese.wikitext import language_of, wikitext_to_text
from tests.test_wikitext import HOSTILE, MARKS

SECONDS = 600
LEFT = re.compile(r"\[\[|\]\]|\{\{|\}\}|<ref\b")
LANGUAGE = language_of("pt")


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
            text = text[:start] + chance.choice(MARKS) * chance.choice((1, 1, 200)) + text[start:]
        else:
            text = text[:start] + chance.choice(list(HOSTILE.values()))[:2000] + text[start:]
    return text


def check(seconds, seed):
    """How many pages were tried in that time."""
    pages = [p.wikitext for p in read_pages(asset_path("demo-ptwiki.xml.bz2")) if p.wikitext]
    chance, tried, stop = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < stop:
        page = broken(pages, chance)
        start = time.process_time()
        text = wikitext_to_text(page, "T", LANGUAGE)
        took = time.process_time() - start
        tried += 1
        assert took < 2, (took, len(page), page)
        assert not LEFT.search(text), page
        text.encode()
    return tried


def test_a_second_of_broken_pages():
    assert check(1.0, seed=1) > 20


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_ten_minutes_of_broken_pages():
    assert check(SECONDS, seed=int(time.time())) > 1000
