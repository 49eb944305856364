"""The facts about a model on the page come from its card or from the manifests of its run."""

import dataclasses
import json
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCardData

from gportuguese import Pipeline, init_world, load_config
from gportuguese.generation import Writer
from gportuguese.serve import describe, model_name


@pytest.fixture
def judged(writer, monkeypatch):
    """A function that tells whether a model with these numbers is a toy."""

    def judge(folder, parameters, bits_per_byte, bytes_per_character=1.0):
        result = {"task_type": "text-generation", "dataset_type": "d", "dataset_name": "d"}
        results = [
            EvalResult(
                **result, dataset_split="test", metric_type="bits_per_byte", metric_value=value
            )
            for value in [bits_per_byte]
            if value is not None
        ]
        data = ModelCardData(model_name="m", eval_results=results or None)
        (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n# m\n")
        monkeypatch.setattr("gportuguese.causal_lm.count_parameters", lambda _: parameters)
        monkeypatch.setattr(type(writer.texts), "bytes_per_character", bytes_per_character)
        found = describe(folder, writer)
        assert (found.parameters, found.bits_per_byte) == (parameters, bits_per_byte)
        return found.is_toy

    return judge


def test_a_toy_is_small_or_far_from_the_floor_of_its_vocabulary(judged, tmp_path):
    assert judged(tmp_path, 49_999_999, 0.9)
    assert judged(tmp_path, 49_999_999, None)
    assert not judged(tmp_path, 50_000_000, None)
    assert not judged(tmp_path, 124_439_808, 2.5)
    assert judged(tmp_path, 124_439_808, 2.51)
    # two bytes per character: the floor is half a bit per byte
    assert not judged(tmp_path, 124_439_808, 2.0, bytes_per_character=2.0)
    assert judged(tmp_path, 124_439_808, 2.01, bytes_per_character=2.0)


@pytest.mark.usefixtures("built_stages")
def test_a_run_and_its_export_give_the_same_facts(tiny_overrides):
    # a card has results only if it names its data set
    config = load_config(None, (*tiny_overrides, "name=minha", "export.dataset=eu/meus-textos"))
    pipeline = Pipeline(config)
    exported = pipeline.build("export", init_world(config.runtime)).folder
    trained = pipeline.open("train").folder / "model"
    of_card = describe(exported, Writer.load(exported, "cpu"))
    of_run = describe(trained, Writer.load(trained, "cpu"))
    report = json.loads((pipeline.open("evaluate").folder / "report.json").read_text())
    for found in (of_card, of_run):
        assert found.title == "minha"
        assert found.languages == ("pt",)
        assert found.prompts == config.evaluate.prompts
        assert found.bits_per_byte == pytest.approx(
            report["measures"]["test"]["bits_per_byte"], abs=1e-6
        )
        assert found.parameters == pipeline.open("export").facts["parameters"]
        assert found.is_toy
    assert of_card.name == exported.name
    assert of_run.name == trained.parent.name
    assert of_card.card.startswith("# minha")
    assert of_card.card.rstrip() in (exported / "README.md").read_text(encoding="utf-8")
    assert of_run.card is None
    assert of_card.as_json()["card"] is True
    # without the report there are no prompts and no measures
    (pipeline.open("evaluate").folder / "manifest.json").unlink()
    assert dataclasses.replace(of_run, prompts=(), bits_per_byte=None) == describe(
        trained, Writer.load(trained, "cpu")
    )


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        (None, {}),
        (b"# Only text", {"card": "# Only text"}),
        (b"---\n[1, 2]\n---\n# m", {}),
        (b"---\na: [\n---\n# m", {}),
        (b"\xff\xfe", {}),
        (
            b"---\nlanguage: [pt, 5, '']\nwidget: [text, {text: 7}, {text: Oi}, {messages: []}]\n"
            b"model-index: nonsense\n---\n# m\n",
            {"card": "# m", "title": "m", "languages": ("pt",), "prompts": ("Oi",)},
        ),
        (b"---\nwidget: 7\nlanguage: {a: b}\n---\nx", {"card": "x"}),
        (b"---\nmodel-index: [{name: m, results: [{}]}]\n---\nx", {"card": "x"}),
        (b"---\nmodel-index: [5]\n---\nx", {"card": "x"}),
    ],
)
def test_any_readme_next_to_a_model_can_be_read(writer, tmp_path, readme, expected):
    if readme is not None:
        (tmp_path / "README.md").write_bytes(readme)
    found = describe(tmp_path, writer)
    keys = ("card", "title", "languages", "prompts", "bits_per_byte")
    nothing = {"card": None, "title": None, "languages": (), "prompts": (), "bits_per_byte": None}
    assert {key: getattr(found, key) for key in keys} == {**nothing, **expected}


@pytest.mark.parametrize("manifest", ["[", "[1]", "{}", '{"stage": "other"}'])
def test_a_manifest_of_another_stage_is_ignored(writer, tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "model").mkdir()
    assert describe(tmp_path / "model", writer).prompts == ()


def test_model_names():
    assert model_name(Path("artifacts/train-1/model")) == "train-1"
    assert model_name(Path("/models/gpt2-small-portuguese")) == "gpt2-small-portuguese"
