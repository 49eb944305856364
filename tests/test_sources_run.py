"""A whole run on a mix of two languages: what each stage reads of it, the report and the card."""

import copy
import importlib
import json
import logging
import math
from argparse import Namespace
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from gportuguese import Pipeline, cli, corpus, evaluate, init_world, load_config, load_model
from gportuguese.align.resources import Resources
from gportuguese.artifacts import Artifact
from gportuguese.causal_lm import load_with_tokenizer
from gportuguese.cli.stage import _show_measures as show_measures
from gportuguese.config import EvaluateConfig, FilterConfig, SourceConfig
from gportuguese.evaluation import build as build_report
from gportuguese.export import card
from gportuguese.forgetting import _validation_texts
from gportuguese.intervals import caution
from gportuguese.stages import STAGES
from gportuguese.tokenizer import build as build_tokenizer
from gportuguese.tokens import build as build_tokens
from gportuguese.tokens import joined_ids, load_ids
from tests.conftest import sentence, tiny_settings

WORDS = [
    "the",
    "house",
    "by",
    "river",
    "stands",
    "old",
    "stone",
    "where",
    "people",
    "walk",
    "green",
]


def write_texts(path, texts):
    rows = (json.dumps({"id": n, "text": text}) for n, text in enumerate(texts))
    path.write_text("\n".join(rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Portuguese and English documents."""
    folder = tmp_path_factory.mktemp("texts")
    english = (
        f"{n} " + " ".join(WORDS[(n * step + step) % len(WORDS)] for step in range(40))
        for n in range(60)
    )
    return {
        "pt": write_texts(folder / "pt.jsonl", (f"{n} {sentence(n, 60)}" for n in range(200))),
        "en": write_texts(folder / "en.jsonl", english),
    }


@pytest.fixture(scope="module")
def settings(files, small_base, tmp_path_factory):
    """The settings of a tiny run that transfers a small model to 80 % Portuguese."""
    return settings_of(files, tmp_path_factory.mktemp("run") / "artifacts", (0.8, 0.2), small_base)


def plain_settings(artifacts):
    all_texts = ("dump.source=null", "corpus.min_chars=50", "evaluate.tokens=null")
    return (*tiny_settings("", artifacts), *all_texts)


def settings_of(files, artifacts, weights, base="package:english-nano"):
    sources = [
        {"documents": files[name], "name": name, "language": name, "weight": weight}
        for name, weight in zip(("pt", "en"), weights, strict=True)
    ]
    return (
        *plain_settings(artifacts),
        f"corpus.sources={json.dumps(sources)}",
        f"align={{base: '{base}', method: mean}}",
    )


@pytest.fixture(scope="module")
def run(settings):
    """The pipeline after `export`."""
    config = load_config(None, settings)
    pipeline = Pipeline(config)
    pipeline.build("export", init_world(config.runtime))
    return pipeline


def texts_of(pipeline, split, source):
    batches = corpus.load(pipeline.open("corpus"), split, source=source)
    return [text for batch in batches for text in batch]


def test_the_pass_has_the_weights_and_the_held_out_sets_are_of_the_first_source(run):
    tokens, bpe = run.open("tokens"), load_model(run.open("train").folder).tokenizer
    target, english = tokens.facts["sources"]
    total = tokens.facts["tokens"]["train"]
    assert (target["name"], english["name"]) == ("pt", "en")
    assert target["tokens"] + english["tokens"] == total
    longest = max(len(bpe.encode(text)) + 1 for text in texts_of(run, "train", "en"))
    assert abs(english["tokens"] - 0.2 * total) <= longest
    assert tokens.facts["bytes"]["train"] == target["bytes"] + english["bytes"]
    ids = load_ids(tokens.folder, "train", tokens.facts["dtype"])
    documents = "".join(bpe.decode(ids)).split("<|endoftext|>")[:-1]
    assert Counter(documents[: target["documents"]]) == Counter(texts_of(run, "train", "pt"))
    assert set(documents[target["documents"] :]) <= set(texts_of(run, "train", "en"))
    assert len(documents) == target["documents"] + english["documents"]
    for split in ("valid", "test"):
        ids = load_ids(tokens.folder, split, tokens.facts["dtype"])
        assert bpe.decode(ids) == "".join(f"{t}<|endoftext|>" for t in texts_of(run, split, "pt"))


def test_tokenizer_and_alignment_learn_from_the_target_language_only(run, files, tmp_path):
    alone = (
        *plain_settings(tmp_path / "artifacts"),
        f"corpus.documents={files['pt']}",
        "corpus.language=pt",
    )
    config = load_config(None, alone)
    other = Pipeline(config).build("tokenizer", init_world(config.runtime))
    name = "tokenizer.json"
    assert (run.open("tokenizer").folder / name).read_bytes() == (other.folder / name).read_bytes()
    tokens = run.open("tokens")
    resources = Resources(run.config.align, tokens, None, 32)
    assert len(resources.target_ids) == tokens.facts["sources"][0]["tokens"]


@pytest.mark.parametrize(
    ("english", "wanted"),
    [
        ("en", "pt (pt); not from en (en)"),
        (None, "pt (pt), en (no language set)"),
    ],
)
def test_the_log_names_the_sources_that_the_tokenizer_learns_from(
    run, english, wanted, tmp_path, caplog
):
    stored = run.open("corpus")
    sources = [dict(each) for each in stored.facts["sources"]]
    sources[1]["language"] = english
    facts = {**stored.facts, "sources": sources}
    inputs = {"corpus": Artifact(stored.folder, {**stored.manifest, "facts": facts})}
    caplog.set_level(logging.INFO, "gportuguese")
    build_tokenizer(run.config, inputs, tmp_path, init_world(run.config.runtime))
    assert f"tokenizer and alignment learn from {wanted}" in caplog.messages


def test_the_report_measures_what_was_forgotten(run, small_base, capsys, settings):
    (found,) = run.open("evaluate").facts["sources"]
    texts = texts_of(run, "valid", "en")
    base = evaluate(small_base, texts, block_size=32)
    trained = evaluate(run.open("train"), texts, block_size=32)
    for key, wanted in (("before", base), ("after", trained)):
        for name in ("bits_per_byte", "bits_per_byte_interval", "loss", "documents"):
            assert found[key][name] == pytest.approx(getattr(wanted, name), rel=1e-4)
    change = found["change"]["bits_per_byte"]
    assert change == pytest.approx(trained.bits_per_byte - base.bits_per_byte, rel=1e-3)
    low, high = found["change"]["bits_per_byte_interval"]
    assert low < change < high
    report = json.loads((run.open("evaluate").folder / "report.json").read_text(encoding="utf-8"))
    assert report["sources"] == json.loads(json.dumps([found]))
    with pytest.raises(SystemExit):
        cli.main(["evaluate", *(w for s in settings for w in ("--set", s))])
    wide = replace(run.config, evaluate=EvaluateConfig(tokens=len(texts) * 20))
    writer = load_model(run.open("train"), device="cpu")
    some = _validation_texts(wide, run.open("corpus"), "en", writer)
    num_tokens = len(joined_ids(writer.tokenizer, texts)[0])
    assert some == texts[:: math.ceil(num_tokens / (len(texts) * 20))] != texts
    table = (run.open("evaluate").folder / "sources.md").read_text(encoding="utf-8")
    assert f"| base model | {base.bits_per_byte:.4f} [" in table
    assert f"| after training | {trained.bits_per_byte:.4f} [" in table
    assert table in capsys.readouterr().out


def test_the_card_states_the_mix_and_what_was_forgotten(run):
    text = ModelCard.load(run.open("export").folder / "README.md").text
    assert (run.open("evaluate").folder / "sources.md").read_text(encoding="utf-8") in text
    distinct = {"pt": 0, "en": 0}
    for part in run.open("tokens").facts["sources"]:
        name, repeats = part["name"], part["repeats"]
        texts = texts_of(run, "train", name)
        distinct[name] = len(texts) if repeats >= 1 else part["documents"]
        assert (
            f"| {name} | the author's own documents | {name} | "
            f"{100 * part['share']:.2f} % | {part['tokens']:,} | {part['bytes']:,} | "
            f"{distinct[name]:,} | {max(repeats, 1):.2f} |"
        ) in text
    total = f"{sum(distinct.values()):,}"
    assert "Text:** 2 sources" in text
    assert f"made of {total} documents, each counted once" in text
    assert f"{total} documentos de treinamento" in text
    assert not any(word in text for word in ("{{", "{%", "None", "Undefined", "pt.jsonl"))


def test_the_card_counts_repeated_documents_once_and_says_how_often_they_are_read(run):
    inputs = {name: run.open(name) for name in STAGES["export"].used_inputs(run.config)}
    facts = inputs["tokens"].facts
    english = facts["sources"][1] | {"documents": 1234, "repeats": 30.5}
    facts["sources"] = [facts["sources"][0], english]
    inputs["tokens"] = Artifact(inputs["tokens"].folder, {"facts": facts})
    text = card.make(run.config, inputs, run.open("export").facts, []).text
    pt, en = (len(texts_of(run, "train", name)) for name in ("pt", "en"))
    assert f"made of {pt + en} documents, each counted once" in text
    assert f" | {en} | 30.50 |" in text
    assert "1,234" not in text


def test_intervals_of_few_documents_come_with_a_caution(run, capsys):
    inputs = {name: run.open(name) for name in STAGES["export"].used_inputs(run.config)}
    evaluated = inputs["evaluate"]
    facts = copy.deepcopy(evaluated.facts)
    facts["measures"]["valid"]["documents"], facts["measures"]["test"]["documents"] = 9, 10
    facts["sources"][0]["after"]["documents"] = 1
    inputs["evaluate"] = Artifact(evaluated.folder, {"facts": facts})
    text = card.make(run.config, inputs, run.open("export").facts, []).text
    few, one = caution([9]), caution([1])
    assert f"(9 for validation, 10 for test). {few}\n" in text
    table = (evaluated.folder / "sources.md").read_text(encoding="utf-8")
    assert f"{table}\n{one}\n" in text
    show_measures(inputs["evaluate"])
    assert capsys.readouterr().out.endswith(f"bootstrap over documents\n{few} {one}\n")


def test_the_card_links_data_sets_on_the_hub(run):
    hub = (
        SourceConfig(documents="me/news", subset="x.pt", name="pt", language="pt"),
        SourceConfig(
            documents="https://anna:secret@host/en.jsonl?sign=secret", name="en", language="en"
        ),
    )
    config = replace(run.config, corpus=replace(run.config.corpus, sources=hub))
    inputs = {name: run.open(name) for name in STAGES["export"].used_inputs(run.config)}
    made = card.make(config, inputs, run.open("export").facts, [])
    assert "| pt | [me/news](https://huggingface.co/datasets/me/news), `x.pt` | pt |" in made.text
    assert "| en | https://host/en.jsonl | en |" in made.text
    assert "secret" not in str(made)
    assert made.data.datasets == ["me/news"]
    assert {result.dataset_type for result in made.data.eval_results} == {"me/news"}


def test_the_card_lists_only_data_sets_that_were_read(run):
    weights = (("news", 1.0), ("measured", 0.0))
    hub = tuple(
        SourceConfig(documents=f"me/{name}", name=source, weight=weight)
        for (name, weight), source in zip(weights, ("pt", "en"), strict=True)
    )
    config = replace(run.config, corpus=replace(run.config.corpus, sources=hub))
    inputs = {name: run.open(name) for name in STAGES["export"].used_inputs(run.config)}
    assert card.make(config, inputs, run.open("export").facts, []).data.datasets == ["me/news"]


def test_the_card_states_the_filter_and_excluded_texts_of_a_single_source(run):
    source = SourceConfig(documents="me/news", name="pt", filter=FilterConfig(min_chars=400))
    section = replace(run.config.corpus, sources=(source,), exclude=("/home/me/exam.jsonl",))
    config = replace(run.config, corpus=section)
    inputs = {name: run.open(name) for name in STAGES["export"].used_inputs(run.config)}
    for name, kept in (
        ("corpus", {"dropped": {"shares text with corpus.exclude": 1234}}),
        ("tokens", {"sources": []}),
    ):
        facts = {**inputs[name].facts, **kept}
        inputs[name] = Artifact(inputs[name].folder, {**inputs[name].manifest, "facts": facts})
    text = card.make(config, inputs, run.open("export").facts, []).text
    assert "  Documents with fewer than 400 characters were dropped.\n" in text
    assert (
        "  Documents that share 13 words in a row with the evaluation texts `exam.jsonl` (or a whole "
        "text of 8 to 12 words) were dropped: 1,234.\n"
    ) in text
    assert "/home/me" not in text


def test_a_weight_changes_neither_corpus_nor_tokenizer(run, files, settings):
    artifacts = run.config.runtime.artifacts_dir
    other = Pipeline(
        load_config(None, settings_of(files, artifacts, (0.9, 0.1), run.config.align.base))
    )
    again = Pipeline(load_config(None, (*settings, "tokens.max_repeats=2")))
    seeded = Pipeline(load_config(None, (*settings, "tokens.seed=1")))
    for stage in ("corpus", "tokenizer"):
        assert other.folder(stage) == run.folder(stage) == seeded.folder(stage)
    assert again.folder("tokens") == run.folder("tokens")
    assert len({each.folder("tokens") for each in (run, other, seeded)}) == 3


@pytest.mark.parametrize("weights", [(0.8, 0.2), (1.0, 0.0)])
def test_the_progress_of_tokens_ends_at_its_total(run, files, weights, tmp_path, monkeypatch):
    totals, done = [], []

    @contextmanager
    def track(description, total):
        totals.append(total)
        yield lambda amount, note="": done.append(amount)

    monkeypatch.setattr("gportuguese.tokens.track", track)
    inputs = {name: run.open(name) for name in ("corpus", "tokenizer")}
    config = load_config(None, settings_of(files, tmp_path / "artifacts", weights))
    build_tokens(config, inputs, tmp_path, init_world(config.runtime))
    documents = [each["documents"] for each in run.open("corpus").facts["sources"]]
    others = documents[1]["train"] if weights[1] else 0
    assert totals == [sum(done)] == [sum(documents[0].values()) + others]


def test_one_source_gives_the_bytes_of_the_short_form(files, tmp_path):
    source = {"documents": files["pt"], "language": "pt"}
    forms = (
        (f"corpus.documents={files['pt']}", "corpus.language=pt"),
        (f"corpus.sources={json.dumps([source])}",),
    )
    written = []
    for number, form in enumerate(forms):
        config = load_config(None, (*plain_settings(tmp_path / str(number)), *form))
        tokens = Pipeline(config).build("tokens", init_world(config.runtime))
        written.append(
            {p.name: p.read_bytes() for p in sorted(tokens.folder.iterdir()) if p.suffix != ".json"}
        )
        assert "sources" not in tokens.facts
    assert written[0] == written[1]
    assert "train.rows.bin" not in written[0]


def test_a_source_without_validation_text_is_not_measured(run, caplog, tmp_path, monkeypatch):
    monkeypatch.setattr("gportuguese.forgetting._validation_texts", lambda *_: [])
    caplog.set_level(logging.WARNING, "gportuguese")
    inputs = {name: run.open(name) for name in ("corpus", "align", "train", "tokens")}
    facts = build_report(run.config, inputs, tmp_path, init_world(run.config.runtime))
    assert facts["sources"] == []
    assert caplog.messages == ["source en has no validation document, so it is not measured"]


def test_vocabularies_are_compared_on_text_of_the_first_source(run, files, request, monkeypatch):
    monkeypatch.syspath_prepend(str(request.config.rootpath / "scripts"))
    compared = importlib.import_module("compare_vocabularies")
    found = compared.texts_of(run.config, Namespace(other=files["en"], chars=10**9))
    assert found["target"] == texts_of(run, "valid", "pt")


def test_a_base_without_an_end_of_text_token_is_not_measured(run, small_base, caplog, tmp_path):
    model, bpe = load_with_tokenizer(str(small_base))
    bpe.eos_token = None
    model.save_pretrained(tmp_path / "base")
    bpe.save_pretrained(tmp_path / "base")
    align = replace(run.config.align, base=str(tmp_path / "base"))
    inputs = {name: run.open(name) for name in STAGES["export"].used_inputs(run.config)}
    caplog.set_level(logging.WARNING, "gportuguese")
    config = replace(run.config, align=align)
    facts = build_report(config, inputs, tmp_path, init_world(config.runtime))
    assert ["has no end-of-text token" in message for message in caplog.messages] == [True]
    (found,) = facts["sources"]
    assert found["before"] is found["change"] is None
    assert found["after"] == run.open("evaluate").facts["sources"][0]["after"]
    inputs["evaluate"] = Artifact(tmp_path, {"facts": facts})
    text = card.make(config, inputs, run.open("export").facts, []).text
    assert "| base model | - |" in text
    assert f"| after training | {found['after']['bits_per_byte']:.4f} [" in text


def test_the_mix_does_not_depend_on_the_number_of_workers(run, settings, tmp_path):
    more = (*settings, f"runtime.artifacts_dir={tmp_path}", "runtime.num_workers=2")
    config = load_config(None, more)
    again = Pipeline(config).build("tokens", init_world(config.runtime))
    for name in ("train.bin", "train.offsets.bin", "train.rows.bin", "valid.bin"):
        found, wanted = (
            np.fromfile(f / name, "u1") for f in (again.folder, run.open("tokens").folder)
        )
        assert (found == wanted).all()


def test_excluded_text_is_dropped_from_every_source_before_its_bytes_count(files, tmp_path, caplog):
    taken = {}
    for name in files:
        row = json.loads(Path(files[name]).read_text(encoding="utf-8").splitlines()[0])
        taken[name] = row["text"]
    lines = [*taken.values(), "Sim."]
    (tmp_path / "evaluation.txt").write_text("\n".join(lines), encoding="utf-8")
    settings = settings_of(files, tmp_path / "artifacts", (0.8, 0.2))
    cut = ("corpus.sources.1.bytes=2000", "corpus.dedup=off")
    config = load_config(None, (*settings, *cut, f"corpus.exclude=[{tmp_path / 'evaluation.txt'}]"))
    pipeline = Pipeline(config)
    with caplog.at_level("INFO"):
        facts = pipeline.build("corpus", init_world(config.runtime)).facts
    assert caplog.text.count("1 of 3 texts or lines have fewer than 8 words") == 1
    for each in facts["sources"]:
        assert each["dropped"]["shares text with corpus.exclude"] >= 1
        texts = [t for split in corpus.SPLITS for t in texts_of(pipeline, split, each["name"])]
        assert taken[each["name"]] not in texts
        assert sum(each["bytes"].values()) == sum(len(text.encode()) for text in texts)
    assert 2000 <= sum(facts["sources"][1]["bytes"].values()) < 2300
