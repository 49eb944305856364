import hashlib
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import Pipeline, init_world, load_config
from gportuguese.config import CorpusConfig
from gportuguese.corpus import CorpusError, Document, Dropped, split_of
from gportuguese.corpus.cleaning import clean_page
from gportuguese.dump import RawPage
from gportuguese.wikitext import language_of
from tests.conftest import dump_xml, page_xml, sentence

SECTION = CorpusConfig(min_chars=20)
PT = language_of("pt")
LONG = "Uma frase que é longa o bastante para ficar."


def reason(page):
    result = clean_page(page, SECTION, PT)
    assert isinstance(result, Dropped)
    return result.reason


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (RawPage(1, "Predefinição:X", 10, False, LONG), "other namespace"),
        (RawPage(1, "X", 0, True, LONG), "redirect"),
        (RawPage(1, "X", 0, False, "#REDIRECIONAMENTO [[Y com um nome longo]]"), "redirect"),
        (RawPage(1, "X", 0, False, "#redirect [[Y com um nome muito longo]]"), "redirect"),
        (RawPage(1, "X", 0, False, LONG + "{{desambiguação}}"), "disambiguation"),
        (RawPage(1, "X", 0, False, LONG + "{{Disambiguation|geo}}"), "disambiguation"),
        (RawPage(1, "X (desambiguação)", 0, False, LONG), "disambiguation"),
        (RawPage(1, "X", 0, False, LONG + "{{Desambig-topo}}"), "disambiguation"),
        (RawPage(1, "X" * 151, 0, False, LONG), "long title"),
        (RawPage(1, "X", 0, False, "Curta."), "too short"),
        (RawPage(1, "X", 0, False, "{{Info|a=" + LONG + "}} Curta."), "too short"),
    ],
)
def test_reasons_for_dropping(page, expected):
    assert reason(page) == expected


def test_the_first_reason_of_the_stated_order_counts():
    """Each page fails for its own reason and for all that come later."""
    title = "X" * 151
    order = clean_page.__doc__.partition("in the order they are checked: ")[2].partition(".")[0]
    pages = {
        "other namespace": RawPage(1, title, 10, True, "{{desambiguação}}"),
        "redirect": RawPage(1, title, 0, True, "{{desambiguação}}"),
        "disambiguation": RawPage(1, title, 0, False, "{{desambiguação}}"),
        "long title": RawPage(1, title, 0, False, "Curta."),
        "too short": RawPage(1, "X", 0, False, "Curta."),
    }
    assert [reason(page) for page in pages.values()] == list(pages)
    assert " ".join(order.split()).split(", ") == list(pages)


def test_a_title_that_only_looks_like_a_namespace_is_an_article():
    page = RawPage(1, "Predefinição: o filme", 0, False, LONG)
    assert isinstance(clean_page(page, SECTION, PT), Document)


def test_a_maintenance_template_is_no_disambiguation():
    wikitext = LONG + "{{disambiguation needed|date=May 2024}}"
    assert isinstance(clean_page(RawPage(1, "X", 0, False, wikitext), SECTION, PT), Document)


def test_half_a_surrogate_pair_does_not_reach_the_text():
    document = clean_page(RawPage(1, "X", 0, False, LONG + " &#xD800; fim"), SECTION, PT)
    assert document.text == LONG + " \ufffd fim"


def test_markup_is_cleaned_away():
    wikitext = (
        "{{Info/Cidade|nome={{nowrap|Lisboa}}}}'''Lisboa''' é a [[capital|capital]] de [[Portugal]]"
        " ({{lang|la|Olisipo}}).<ref>{{citar livro|a=b}}</ref>\n\n== Clima ==\n"
        'Tem verões secos.<!-- nota -->\n{| class="wikitable"\n|-\n| 1 || 2\n|}\n'
    )
    document = clean_page(RawPage(1, "Lisboa", 0, False, wikitext), SECTION, PT)
    assert isinstance(document, Document)
    assert document.text == "Lisboa é a capital de Portugal (Olisipo).\nClima\nTem verões secos."


@given(st.text(min_size=1))
def test_split_depends_on_the_id_alone(document_id):
    bucket = int(hashlib.sha256(document_id.encode()).hexdigest()[:16], 16) % 1000
    wanted = "valid" if bucket < 100 else "test" if bucket < 200 else "train"
    assert split_of(document_id, CorpusConfig(valid_per_mille=100, test_per_mille=100)) == wanted


def test_split_shares_are_as_asked():
    section = CorpusConfig(valid_per_mille=50, test_per_mille=20)
    counts = Counter(split_of(str(number), section) for number in range(20_000))
    assert counts["valid"] / 20_000 == pytest.approx(0.05, abs=0.006)
    assert counts["test"] / 20_000 == pytest.approx(0.02, abs=0.004)


@given(st.text(alphabet="[]{}|'=<>/!-refmath &;#*:\n ab", max_size=400))
def test_no_wikitext_makes_cleaning_fail(wikitext):
    assert isinstance(
        clean_page(RawPage(1, "T", 0, False, wikitext), SECTION, PT), (Document, Dropped)
    )


def build(tmp_path, *overrides):
    config = load_config(
        None,
        (
            f"runtime.artifacts_dir={tmp_path / 'artifacts'}",
            "runtime.num_workers=1",
            "corpus.min_chars=50",
            "corpus.valid_per_mille=300",
            "corpus.test_per_mille=100",
            *overrides,
        ),
    )
    return Pipeline(config).build("corpus", init_world(config.runtime))


def test_every_page_is_counted_and_duplicates_are_dropped(tmp_path):
    dump = tmp_path / "d.xml"
    pages = [page_xml(n, f"P{n}", sentence(n, 60)) for n in range(1, 31)]
    pages += [page_xml(99, "Cópia", sentence(1, 60)), page_xml(100, "Ajuda:X", "x" * 99, 12)]
    # short, but that is not why they are dropped
    pages += [page_xml(101, "Y", "{{desambiguação}}"), page_xml(102, "Z", "#REDIRECT [[Y]]")]
    dump.write_text(dump_xml("".join(pages)), encoding="utf-8")
    artifact = build(tmp_path, f"dump.source={dump}")
    assert artifact.facts["pages"] == 34
    assert artifact.facts["dropped"] == {
        "disambiguation": 1,
        "exact duplicate": 1,
        "other namespace": 1,
        "redirect": 1,
    }
    assert sum(artifact.facts["documents"].values()) == 30
    lines = (artifact.folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    dropped = [json.loads(line) for line in lines]
    assert {row["title"] for row in dropped} == {"Cópia", "Ajuda:X", "Y", "Z"}


def test_dump_without_articles_is_refused_and_nothing_published(tmp_path):
    dump = tmp_path / "d.xml"
    dump.write_text(dump_xml(""), encoding="utf-8")
    with pytest.raises(CorpusError, match="holds no pages"):
        build(tmp_path, f"dump.source={dump}")
    assert not [p for p in (tmp_path / "artifacts").glob("corpus-*") if p.suffix != ".partial"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "txt"])
def test_own_documents_enter_at_the_filters(tmp_path, kind):
    texts = [sentence(number, 60) for number in range(40)]
    folder = tmp_path / "own"
    folder.mkdir()
    if kind == "jsonl":
        lines = (json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts))
        (folder / "d.jsonl").write_text("".join(lines), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.table({"text": texts}), folder / "d.parquet")
    else:
        for number, text in enumerate(texts):
            (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    artifact = build(tmp_path, f"corpus.documents={folder}", "dump.source=null")
    assert sum(artifact.facts["documents"].values()) + artifact.facts["dropped"].get(
        "exact duplicate", 0
    ) == len(texts)
