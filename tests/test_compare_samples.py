"""The script that continues held-out articles with several models, as its user runs it."""

import importlib
import sys

import pytest

from gportuguese import load_model
from gportuguese.artifacts import open_artifact
from gportuguese.config import asset_path
from gportuguese.corpus import load
from gportuguese.generation import Sampling


def greedy_text(source, prompt):
    stream = load_model(source).stream(prompt, Sampling(max_new_tokens=8, top_k=1), window=True)
    return " ".join("".join(stream).split())


@pytest.fixture
def compared(request, monkeypatch):
    monkeypatch.syspath_prepend(str(request.config.rootpath / "scripts"))
    return importlib.import_module("compare_samples")


def test_models_continue_the_openings_of_test_articles(compared, tiny_stages, monkeypatch, capsys):
    aligned = next(tiny_stages.glob("align-*"))
    models = {"nano": asset_path("english-nano"), "start": aligned}
    named = ",".join(f"{name}={source}" for name, source in models.items())
    words = ["--config", str(aligned), "--models", named, "--prompts", "2", "--new-tokens", "8"]
    monkeypatch.setattr(sys, "argv", ["compare_samples.py", *words])
    compared.main()
    _, _, head, _, greedy, drawn, *texts = capsys.readouterr().out.splitlines()
    assert head == "|  | nano | start | the articles |"
    assert [row.count("|") for row in (greedy, drawn)] == [5, 5]
    articles = next(load(open_artifact(next(tiny_stages.glob("corpus-*"))), "test"))[:2]
    prompts = [line.removeprefix("## ") for line in texts if line.startswith("## ")]
    assert len(prompts) == 2
    assert all(map(str.startswith, articles, prompts))
    for name, source in models.items():
        written = [line for line in texts if line.startswith(f"- {name}, greedy: ")]
        for prompt, line in zip(prompts, written, strict=True):
            assert line == f"- {name}, greedy: {greedy_text(source, prompt)}"


def test_repetition_is_the_share_of_word_groups_seen_before(compared):
    assert compared.repeated("um dois três quatro cinco") == 0
    assert compared.repeated("a b a b a b", n=2) == 3 / 5
    assert compared.repeated("curto") == 0
    assert compared.share(["a a a a a a", "a b c d"]) == "33.3"
