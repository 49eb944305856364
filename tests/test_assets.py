"""The shipped demonstration and the tree are what they claim to be."""

import runpy

import pytest

from gportuguese import Pipeline, corpus, init_world, load_config
from gportuguese.config import asset_path
from gportuguese.dump import read_pages


def test_demo_dump_is_built_from_its_articles(request, tmp_path, monkeypatch):
    import bz2

    script = request.config.rootpath / "scripts" / "build_demo_dump.py"
    functions = runpy.run_path(str(script))
    text = functions["dump_xml"](request.config.rootpath / "scripts" / "demo_wikipedia")
    assert bz2.decompress(asset_path("demo-ptwiki.xml.bz2").read_bytes()).decode() == text


def test_demo_encyclopedia_has_what_real_ones_have():
    pages = list(read_pages(asset_path("demo-ptwiki.xml.bz2")))
    articles = [p for p in pages if p.namespace == 0 and not p.is_redirect]
    wikitext = "".join(page.wikitext for page in articles)
    for markup in (
        "{{Info/",
        "<ref",
        "{|",
        "<gallery",
        "<math>",
        "{{desambigua",
        "{{nowrap",
        "\n* ",
    ):
        assert markup in wikitext, markup
    assert sum(page.is_redirect for page in pages) >= 10
    assert {page.namespace for page in pages} >= {0, 10, 14}


def test_demo_corpus_is_large_enough_and_clean(tmp_path):
    config = load_config(None, (f"runtime.artifacts_dir={tmp_path}",))
    artifact = Pipeline(config).build("corpus", init_world(config.runtime))
    assert sum(artifact.facts["documents"].values()) >= 60
    assert artifact.facts["bytes"] > 200_000
    for split in corpus.SPLITS:
        for texts in corpus.load(artifact, split):
            for text in texts:
                assert not {"{{", "}}", "[[", "]]", "<ref", "|-"} & {
                    mark for mark in ("{{", "}}", "[[", "]]", "<ref", "|-") if mark in text
                }


def test_demo_templates_leave_their_words_and_its_notes_none(tmp_path):
    config = load_config(None, (f"runtime.artifacts_dir={tmp_path}",))
    artifact = Pipeline(config).build("corpus", init_world(config.runtime))
    text = "\n".join(
        line for split in corpus.SPLITS for texts in corpus.load(artifact, split) for line in texts
    )
    for words in (
        "Amália Rodrigues (1920–1999). Depois",
        "Mestre Bimba (1899–1974), julgava",
        "Leandro Gomes de Barros (1865–1918) começou",  # by a redirect, with named arguments
        "299 792 458 metros por segundo",
    ):
        assert words in text
    assert "Este artigo é sobre" not in text
    assert artifact.facts["templates_over_limit"] == {}


def test_assets_stay_under_12_megabytes():
    sizes = [path.stat().st_size for path in asset_path(".").rglob("*") if path.is_file()]
    assert sum(sizes) < 12e6


@pytest.mark.parametrize("name", ["torch", "fastai", "transformers", "wikiextractor", "datasets"])
def test_dependencies_are_declared(request, name):
    text = (request.config.rootpath / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{name}>=' in text
