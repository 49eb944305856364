import bz2

import pytest

from gportuguese import Pipeline, init_world, load_config
from gportuguese.dump import DumpError, read_pages
from tests.conftest import SHARED, dump_xml, page_xml

PAGES = "".join(page_xml(n, f"P{n}", "x" * 500) for n in range(1, 51))


@pytest.mark.parametrize("kind", ["plain", "bz2", "multistream"])
def test_every_container_gives_the_same_pages(tmp_path, kind):
    data = dump_xml(PAGES).encode()
    path = tmp_path / ("d.xml" if kind == "plain" else "d.xml.bz2")
    half = len(data) // 2
    containers = {
        "plain": data,
        "bz2": bz2.compress(data),
        "multistream": bz2.compress(data[:half]) + bz2.compress(data[half:]),
    }
    path.write_bytes(containers[kind])
    consumed = []
    pages = list(read_pages(path, consumed.append))
    assert [page.title for page in pages] == [f"P{n}" for n in range(1, 51)]
    assert [page.id for page in pages] == list(range(1, 51))
    assert all(page.wikitext == "x" * 500 for page in pages)
    assert sum(consumed) == path.stat().st_size


def test_truncated_bz2_names_page_and_byte(tmp_path):
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(bz2.compress(dump_xml(PAGES).encode())[:-20])
    with pytest.raises(DumpError, match=r"ends early .* at byte [\d,]+ of [\d,]+; fetch it again"):
        list(read_pages(path))


def test_truncated_xml_names_the_last_page(tmp_path):
    path = tmp_path / "d.xml"
    path.write_text(dump_xml(PAGES)[: len(PAGES) // 2], encoding="utf-8")
    with pytest.raises(DumpError, match=r"ends early after page \d+ \('P\d+'\), at byte"):
        list(read_pages(path))


def test_flipped_bits_are_noticed(tmp_path):
    path = tmp_path / "d.xml.bz2"
    data = bytearray(bz2.compress(dump_xml(PAGES).encode()))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DumpError, match="is damaged|ends early|not well-formed"):
        list(read_pages(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html><body/></html>", "not a MediaWiki dump: its root is <html>"),
        ("just text", "is not well-formed XML"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "d.xml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DumpError, match=message):
        list(read_pages(path))


@pytest.mark.data
def test_genuine_italian_dump_has_redirects_and_namespaces():
    pages = list(read_pages(SHARED / "itwiki" / "itwiki-small-pages-articles.xml.bz2"))
    assert sum(page.is_redirect for page in pages) == 65
    assert {page.namespace for page in pages} >= {0, 1, 2, 3, 4}


def test_a_dump_that_moved_is_read_where_it_is_now(tiny_dump, tiny_overrides, tmp_path):
    moved = tmp_path / "elsewhere.xml.bz2"
    first = tmp_path / "first.xml.bz2"
    first.write_bytes(tiny_dump.read_bytes())
    config = load_config(None, (*tiny_overrides, f"dump.source={first}"))
    Pipeline(config).build("dump", init_world(config.runtime))
    first.rename(moved)
    first.write_bytes(bz2.compress(dump_xml("").encode()))  # another dump at the old place
    config = load_config(None, (*tiny_overrides, f"dump.source={moved}"))
    artifact = Pipeline(config).build("corpus", init_world(config.runtime))
    assert artifact.facts["pages"] == 120
