import bz2
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import Pipeline, init_world, load_config
from gportuguese.dump import DumpError, RawPage, read_pages, reader
from tests.conftest import SHARED, dump_xml, page_xml

PAGES = "".join(page_xml(n, f"P{n}", "x" * 500) for n in range(1, 51))


def slow_pages(path):
    """The twin of `read_pages`: one XML parser over the whole file."""
    data = path.read_bytes()
    root = ElementTree.fromstring(bz2.decompress(data) if data[:3] == b"BZh" else data)
    xmlns = root.tag.removesuffix("mediawiki")
    for page in root.iter(f"{xmlns}page"):
        yield RawPage(
            id=int(page.findtext(f"{xmlns}id")),
            title=page.findtext(f"{xmlns}title"),
            namespace=int(page.findtext(f"{xmlns}ns")),
            is_redirect=page.find(f"{xmlns}redirect") is not None,
            wikitext=page.findtext(f"{xmlns}revision/{xmlns}text") or "",
        )


def multistream(pages, per_stream):
    """A dump as Wikimedia's host lays it out: header, groups of pages, footer, each a stream."""
    header, footer = dump_xml("\0").split("\0")
    streams = ["".join(pages[i : i + per_stream]) for i in range(0, len(pages), per_stream)]
    return b"".join(bz2.compress(part.encode()) for part in (header, *streams, footer))


ODD_PAGES = [
    page_xml(
        1, "AT&amp;T &quot;x&quot;", "&lt;ref&gt;a &amp;amp; b&lt;/ref&gt; &#233; &apos;c&apos;"
    ),
    page_xml(2, "Vazia", ""),
    page_xml(3, "R", "#REDIRECT [[X]]", redirect='<redirect title="X" />'),
    page_xml(4, "Predefinição:X", "y", namespace=10),
    page_xml(5, "日本", "東京 &lt;!-- x --&gt;"),
]


@pytest.mark.parametrize("kind", ["plain", "bz2", "multistream", "cut anywhere"])
def test_every_container_gives_the_pages_that_an_xml_parser_finds(tmp_path, kind):
    data = dump_xml("".join(ODD_PAGES) + PAGES).encode()
    path = tmp_path / ("d.xml" if kind == "plain" else "d.xml.bz2")
    third = len(data) // 3
    containers = {
        "plain": data,
        "bz2": bz2.compress(data),
        "multistream": multistream([*ODD_PAGES, *PAGES.splitlines(keepends=True)], 7),
        "cut anywhere": b"".join(  # as pbzip2 does
            bz2.compress(data[i : i + third]) for i in range(0, len(data), third)
        ),
    }
    path.write_bytes(containers[kind])
    assert list(read_pages(path)) == list(slow_pages(path))


def test_pieces_are_whole_pages_and_cover_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_RANGE_BYTES", 500)
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(multistream(PAGES.splitlines(keepends=True), 3))
    pieces = list(reader.pieces_of(path))
    assert len(pieces) > 1
    assert pieces[0].start == 0
    assert pieces[-1].end == path.stat().st_size
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert all(piece.xml is None for piece in pieces)
    plain = tmp_path / "d.xml"
    plain.write_text(dump_xml(PAGES), encoding="utf-8")
    chunks = list(reader.pieces_of(plain))
    assert b"".join(piece.xml for piece in chunks) == plain.read_bytes()


def test_a_page_that_is_not_wanted_keeps_its_facts_but_no_text(tmp_path):
    path = tmp_path / "d.xml"
    path.write_text(dump_xml("".join(ODD_PAGES)), encoding="utf-8")
    (piece,) = reader.pieces_of(path)
    pages = list(reader.pages_in(path, piece, lambda namespace, *_: namespace == 10))
    assert [page.title for page in pages] == [page.title for page in slow_pages(path)]
    assert [page.wikitext for page in pages] == ["", "", "", "y", ""]


def test_a_truncated_multistream_dump_is_noticed_wherever_it_was_cut(tmp_path):
    data = multistream(PAGES.splitlines(keepends=True), 10)
    path = tmp_path / "d.xml.bz2"
    for end in range(len(data) // 4, len(data) - 1, 97):
        path.write_bytes(data[:end])
        with pytest.raises(DumpError, match="ends early"):
            list(read_pages(path))


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
    with pytest.raises(DumpError, match="is damaged|ends early"):
        list(read_pages(path))


def test_xml_without_the_end_of_a_page_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_RANGE_BYTES", 1000)
    monkeypatch.setattr(reader, "_MAX_PAGE_BYTES", 100_000)
    path = tmp_path / "d.xml"
    path.write_text(dump_xml("<page>" + "x" * 999_999), encoding="utf-8")
    with pytest.raises(DumpError, match=r"has [\d,]+ bytes of XML without the end of a page"):
        list(read_pages(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html><body/></html>", "not a MediaWiki dump: its root is <html>"),
        ("just text", "is not XML"),
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


@given(
    st.lists(st.sampled_from([b"BZh91AY&SY", b"BZh91AY&S", b"BZh", b"x" * 5000]), max_size=12),
)
def test_streams_are_found_where_the_whole_file_shows_them(parts):
    data = b"BZh91AY&SY" + b"".join(parts)
    whole = [match.start() for match in reader._STREAM.finditer(data)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "dump.bz2"
        path.write_bytes(data)
        patch.setattr(reader, "_RANGE_BYTES", 1)  # releases every page of memory it has searched
        assert list(reader.stream_starts(path)) == whole
        assert list(reader.stream_starts(path, whole[-1])) == whole[-1:]
