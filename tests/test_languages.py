"""Languages are tables: real pages in three of them."""

import bz2
import re
import subprocess
import sys

import pytest
import yaml

from gportuguese import Pipeline, corpus, init_world, load_config
from gportuguese.dump import read_pages
from gportuguese.dump.reader import read_header
from gportuguese.wikitext import FAULT, hash_tables, language_of, wikitext_to_text
from gportuguese.wikitext.languages import _FOLDER, LanguageError
from tests.conftest import SHARED


@pytest.mark.parametrize("code", sorted(path.stem for path in _FOLDER.glob("*.yaml")))
def test_every_table_is_whole(code):
    language = language_of(code)
    assert len(language.months) == 12
    assert language.tail_sections == {name.lower() for name in language.tail_sections}
    assert language.hidden_prefixes >= {"file", "category"}
    assert len(language.tongues) > 200
    assert len(language.countries) > 250
    kinds = (
        "number|quantity|month|measure|all|date|coordinates|fraction|ship|called|language|country|roman"
        "|article|age|hole|if|asof|biography"
    )
    field = re.compile(rf"\{{(?:(?:{kinds}):[^{{}}]*|[^{{}}:]*)\}}")
    for name, pattern in [*language.words.items(), *language.word_prefixes]:
        assert "{" not in field.sub("", pattern), name
        assert name not in language.nothing, f"{name} is in words and in nothing"


def test_a_table_that_lacks_something_is_named(tmp_path, monkeypatch):
    tables = yaml.safe_load((_FOLDER / "it.yaml").read_text(encoding="utf-8"))
    del tables["months"]
    for path in [_FOLDER / "en.yaml", *_FOLDER.glob("*.tsv")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = _folder_hash(monkeypatch, tmp_path)
    (tmp_path / "qq.yaml").write_text(yaml.safe_dump(tables), encoding="utf-8")
    assert _folder_hash(monkeypatch, tmp_path) != before
    with pytest.raises(LanguageError, match=r"qq\.yaml lacks months"):
        language_of("qq")


def _folder_hash(monkeypatch, folder):
    monkeypatch.setattr("gportuguese.wikitext.languages._FOLDER", folder)
    return hash_tables("qq")


@pytest.mark.data
def test_a_second_language_needs_no_code(tmp_path):
    config = load_config(
        None,
        (
            f"dump={{source: {SHARED / 'itwiki/itwiki-small-pages-articles.xml.bz2'}}}",
            f"runtime.artifacts_dir={tmp_path}",
            "corpus={min_chars: 200, valid_per_mille: 100, test_per_mille: 50}",
        ),
    )
    artifact = Pipeline(config).build("corpus", init_world(config.runtime))
    facts = artifact.facts
    # of the 65 redirects of the sample one is outside the articles, which is the first reason
    assert facts["dropped"]["redirect"] == 64
    assert facts["dropped"]["other namespace"] > 0
    assert sum(facts["documents"].values()) > 20
    assert facts["faults_per_mb"] < 5
    texts = [t for split in corpus.SPLITS for batch in corpus.load(artifact, split) for t in batch]
    lines = {line for text in texts for line in text.split("\n")}
    assert not lines & {"Note", "Voci correlate", "Collegamenti esterni"}


@pytest.mark.data
def test_a_very_large_genuine_page_keeps_its_prose_and_loses_its_markup():
    xml = bz2.decompress((SHARED / "ptwiki/raw/berlim.xml.bz2").read_bytes()).decode()
    match = re.search(r"<text[^>]*>(.*?)</text>", xml, re.DOTALL)
    wikitext = match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    text = wikitext_to_text(wikitext.replace("&amp;", "&"), "Berlim", language_of("pt"))
    assert len(text) > 30_000
    assert text.startswith("Berlim")
    assert len(FAULT.findall(text)) <= 2


DUTCH = """<mediawiki xml:lang="nl"><siteinfo><namespaces>
<namespace key="6">Prent</namespace><namespace key="14">Categorie</namespace></namespaces></siteinfo>
<page><title>Gent</title><ns>0</ns><id>1</id><revision><text>[[Prent:A.jpg|mini|De stad]]
[[Bestand:B.jpg|mini|Nog een]] '''Gent''' is een [[stad]].{{Nieuw|a}}

== Bronnen ==
* een
[[Categorie:Gent]]</text></revision></page>
<page><title>B</title><ns>0</ns><id>2</id><revision><text>#DOORVERWIJZING [[Gent]]</text></revision></page>
</mediawiki>"""


def test_a_language_without_a_table_knows_its_namespaces(tmp_path):
    dump = tmp_path / "nl.xml"
    dump.write_text(DUTCH, encoding="utf-8")
    header = read_header(dump)
    language = language_of(header.language, header.namespaces)
    page, redirect = read_pages(dump)
    text = wikitext_to_text(page.wikitext, page.title, language)
    assert text == "Gent is een stad.\nBronnen\neen"
    assert language.redirect.match(redirect.wikitext)
    assert not language.countries
    assert language_of("pt-br").hidden_prefixes == language_of("pt").hidden_prefixes


def test_survey_shows_what_a_table_should_name(tmp_path):
    dump = tmp_path / "nl.xml"
    dump.write_text(DUTCH, encoding="utf-8")
    words = [sys.executable, "-m", "gportuguese", "survey", str(dump)]
    report = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "1 articles, language nl, table: none of its own" in report
    assert "prent" in report
    assert "       1  Bronnen\n" in report
    assert "       1  Nieuw\n" in report
    missing = subprocess.run([*words[:4], "no.xml"], capture_output=True, text=True, cwd=tmp_path)
    assert missing.returncode == 2
    assert "no dump at no.xml" in missing.stderr


@pytest.mark.parametrize(
    ("code", "wikitext", "wanted"),
    [
        ("es", "en el {{siglo|XX||s}}, {{unidad|1200|km}} ({{lang-de|Wien}})",
         "en el siglo XX, 1 200 km (en alemán: Wien)"),
        ("fr", "au {{s-|XIX}} : {{unité|9381|km|2}}, {{nobr|86 ans}} ({{lang-de|Wien}}) ; fin",
         "au XIXe siècle : 9 381 km^2, 86 ans (en allemand : Wien) ; fin"),
        ("fr", "Texte.\n== Liens externes ==\nx\n== Notes et références ==\ny", "Texte."),
        ("de", "Die Höhe ({{Höhe|115|DE-NHN}}, {{enS|''height''}}) ist {{FRA}}",
         "Die Höhe (115 m ü. NHN, englisch height) ist Frankreich"),
        ("de", "Text.\n== Literatur und Quellen ==\nx\n== Siehe auch ==\ny", "Text."),
        ("it", "vide {{Citazione|una frase}}\n{{Bandiera|Francia}} {{lang-de|Wien}}",
         "vide\nuna frase\nin tedesco Wien"),
        ("en", "{{zh|c=中文|p=Zhōngwén}}, {{lang-ru|Москва|Moskva}}, {{ship|HMS|Hood|51}}",
         "Chinese: 中文; pinyin: Zhōngwén, Russian: Москва, romanized: Moskva, HMS Hood (51)"),
    ],
)  # fmt: skip
def test_what_readers_of_other_languages_see(code, wikitext, wanted):
    assert wikitext_to_text(wikitext, "T", language_of(code)) == wanted
