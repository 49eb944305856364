import re
from pathlib import Path

import pytest

from gportuguese.artifacts import Artifact
from gportuguese.config import EvaluateConfig
from gportuguese.corpus import load, probe_of, prompts_of
from gportuguese.corpus.openings import PROBES, PROMPTS, opening_of
from tests.conftest import sentence
from tests.test_corpus import build
from tests.test_documents import write_rows


@pytest.mark.parametrize("language", ["pt", "pt-BR", "en", "it", "es", "fr", "de"])
def test_prompts_and_probe_follow_the_language(language):
    artifact = Artifact(Path("corpus"), {"facts": {"language": language}})
    prompts = prompts_of(EvaluateConfig(), artifact)
    assert prompts == list(PROMPTS[language[:2]])
    assert len(set(prompts)) == 4
    assert probe_of(artifact) == PROBES[language[:2]]
    assert not [prompt for prompt in prompts if prompt[-1] in " .?!"]
    assert prompts_of(EvaluateConfig(prompts=("x",)), artifact) == ["x"]
    assert prompts_of(EvaluateConfig(prompts=()), artifact) == []


@pytest.mark.parametrize("language", ["null", "eo"])
def test_other_languages_are_prompted_with_the_openings_of_held_out_documents(tmp_path, language):
    rows = [{"id": n, "text": f"Frazo {n} en Esperanto. {sentence(n, 60)}"} for n in range(40)]
    path = write_rows(tmp_path / "d.jsonl", rows)
    settings = (f"corpus.documents={path}", "dump.source=null", f"corpus.language={language}")
    artifact = build(tmp_path, *settings)
    prompts = prompts_of(EvaluateConfig(), artifact)
    held_out = next(load(artifact, "valid"))
    assert len(set(prompts)) == 4
    for prompt, text in zip(prompts, held_out, strict=False):
        assert re.fullmatch(r"Frazo \d+ en Esperanto\..*\w", prompt)
        assert text.startswith(f"{prompt} ")
    assert probe_of(artifact) == prompts[0]


def test_the_opening_of_a_language_without_spaces():
    assert opening_of("東京は日本の首都である。\n東京") == "東京は日本の"
    assert opening_of("") == ""
