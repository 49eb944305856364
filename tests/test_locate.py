"""Commands find a model or a run by any of its folders, and log which one they use."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from gportuguese import Pipeline, init_world, load_config, locate
from gportuguese.artifacts import building, publish
from gportuguese.config import UserError, as_tree, asset_path, config_of
from gportuguese.locate import LocateError, find_model, find_stage
from tests.conftest import tiny_settings
from tests.test_cli import gpt_pt, sets


@pytest.fixture(scope="module")
def run(tiny_dump, tiny_stages, tmp_path_factory):
    """A trained and exported run: its settings, and its stage folders by name."""
    folder = shutil.copytree(tiny_stages, tmp_path_factory.mktemp("run") / "artifacts")
    settings = tiny_settings(tiny_dump, folder)
    pipeline = Pipeline(load_config(None, settings))
    pipeline.build("export", init_world(pipeline.config.runtime))
    return settings, {stage.name: pipeline.folder(stage.name) for stage in pipeline.stages()}


def test_a_model_is_found_by_any_folder_of_its_run(run, caplog):
    caplog.set_level("INFO", "gportuguese")
    _, stages = run
    model = stages["train"] / "model"
    for place in (stages["train"].parent, stages["train"], model):
        assert find_model(str(place)) == model
        assert caplog.messages[-1] == f"model: {model}"
    for stage in ("export", "align"):
        assert find_model(str(stages[stage])) == stages[stage]
    assert find_model("package:english-nano") == asset_path("english-nano")


def test_a_stage_is_found_by_any_folder_of_its_run(run):
    _, stages = run
    model = stages["train"] / "model"
    for name in ("train", "export"):
        for place in (stages["train"].parent, stages["train"], model, stages["export"]):
            assert find_stage(str(place), name) == stages[name]


def test_a_stage_below_the_working_folder_has_a_short_path(run, monkeypatch):
    _, stages = run
    monkeypatch.chdir(stages["train"].parents[1])
    folder = Path(stages["train"].parent.name, stages["train"].name)
    assert find_stage(stages["train"].parent.name, "train") == folder
    monkeypatch.chdir(stages["train"])
    assert find_stage(".", "train") == stages["train"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("export", "{root}"), "train"),
        (("export", "{root}/train-0123456789ab.partial"), "train"),
        (("push", "{root}", "--repo", "anna/x"), "export"),
        (("serve", "{root}"), "train"),
        (("generate", "{root}/{tokens}"), "train"),
    ],
)
def test_an_unfinished_run_is_continued_by_the_command_that_is_suggested(
    tiny_stages, tmp_path, capsys, words, command
):
    root = shutil.copytree(tiny_stages, tmp_path / "my runs")
    (root / "train-0123456789ab.partial").mkdir()
    (tokens,) = root.glob("tokens-*")
    given = [word.format(root=root, tokens=tokens.name) for word in words]
    assert gpt_pt(*given) == 2
    suggested = shlex.split(capsys.readouterr().err.partition("run: ")[2])
    assert suggested[:3] == ["gpt-pt", command, "--config"]
    assert Path(suggested[3]).parent == root
    assert gpt_pt("status", *suggested[2:]) == 0
    status = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in status[:-1]] == [*["done"] * 5, *["missing"] * 3]
    assert status[-1] == f"next: {shlex.join(['gpt-pt', 'train', *suggested[2:]])}"


@pytest.mark.parametrize("name", ["train-2024", "export-0123456789ab"])
def test_an_artifacts_folder_may_be_named_like_a_stage(run, tmp_path, name):
    _, stages = run
    root = tmp_path / name
    root.mkdir()
    with pytest.raises(
        LocateError, match=f"no finished `train` stage in {root}; run: gpt-pt train"
    ):
        find_stage(str(root), "train")
    for stage in ("train", "export"):
        (root / stages[stage].name).symlink_to(stages[stage])
        assert find_stage(str(root), stage) == root / stages[stage].name
        assert find_stage(str(root / stages[stage].name), stage) == root / stages[stage].name
    assert find_model(str(root)) == root / stages["train"].name / "model"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{corpus}", "no model in .*/corpus-"),
        ("{corpus}/nothing/at/all", "nothing/at/all does not exist; pass a model folder"),
        ("./here", "here does not exist"),
        (
            "Era uma vez " * 30,
            r"'Era uma vez Era .*'\.\.\. is too long for the name of a model",
        ),
        ("{yaml}", "my.yaml is a file; pass a model folder, or select a run by --config"),
        ("{empty}", "no model in .*/empty: it holds neither a trained run .* run: gpt-pt train"),
        (
            "Era uma vez",
            "there is no folder 'Era uma vez' in .*; to train a model here, run: gpt-p",
        ),
        (
            "artifacts",
            "there is no folder 'artifacts' in .*, and models on the Hub have ids such as",
        ),
        ("artifacts/", "artifacts does not exist"),
        ("artifacts/train-0123456789ab", "artifacts/train-0123456789ab does not exist"),
        ("gpt2", "no local folder gpt2, and cannot fetch 'gpt2': the Hub is unreachable"),
        ("some/model", "no local folder some/model, and cannot fetch 'some/model': the Hub is"),
    ],
)
def test_an_argument_that_is_not_a_model_is_rejected_with_advice(
    run, tmp_path, monkeypatch, capsys, source, message
):
    _, stages = run
    monkeypatch.chdir(tmp_path)  # another folder may hold artifacts
    (tmp_path / "my.yaml").write_text("name: my\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    places = {"yaml": tmp_path / "my.yaml", "empty": tmp_path / "empty"}
    given = source.format(corpus=stages["corpus"], **places)
    assert gpt_pt("generate", given) == 2  # before it waits for prompts
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error


def test_several_runs_in_a_folder_are_an_error_that_lists_them(tmp_path):
    for time, name in enumerate(("old", "new")):
        for stage in ("train", "export"):
            folder = tmp_path / f"{stage}-{time:012d}"
            with building(folder, resumable=False) as partial:
                (partial / "model").mkdir()
                (partial / "model" / "config.json").write_text("{}", encoding="utf-8")
                manifest = {"digest": f"{time:012d}", "name": name, "inputs": {"train": "0" * 12}}
                publish(partial, folder, manifest)
            os.utime(folder, (time, time))
    newest_first = r"holds 2 `train` stages; pass one of them:\n.*1 \(new, .*\n.*0 \(old, "
    with pytest.raises(LocateError, match=newest_first):
        find_model(str(tmp_path))
    with pytest.raises(LocateError, match=newest_first):
        find_stage(str(tmp_path), "train")
    with pytest.raises(LocateError, match="holds 2 `export` stages"):
        find_stage(str(tmp_path / "train-000000000000"), "export")
    with pytest.raises(
        LocateError, match=r"no finished `export` stage of .*-0{11}1; run: gpt-pt export .*1"
    ):
        find_stage(str(tmp_path / "train-000000000001"), "export")
    assert find_model(str(tmp_path / "train-000000000001")).parent.name == "train-000000000001"


def test_generate_with_a_config_takes_only_prompts(run, capsys):
    settings, stages = run
    words = ("--max-new-tokens", "3")
    assert gpt_pt("generate", *sets(settings), *words, "o rio", "a lua") == 0
    said = capsys.readouterr()
    assert f"model: {stages['train'] / 'model'}" in said.err
    assert [text[:5] for text in said.out.split("\n\n")] == ["o rio", "a lua"]
    assert gpt_pt("generate", *sets(settings), "--set", "name=other", *words, "o rio") == 0
    assert gpt_pt("generate", *sets(settings), "--set", "train.seed=1", "o rio") == 2
    missing = shlex.join(["gpt-pt", "train", *sets(settings), "--set", "train.seed=1"])
    assert capsys.readouterr().err.endswith(f"; run: {missing}\n")


def test_export_accepts_the_folder_of_a_run(run, capsys, monkeypatch):
    _, stages = run
    monkeypatch.chdir(stages["train"])
    assert gpt_pt("export", "model") == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(stages["export"])
    assert f"run: {stages['train']}" in said.err
    assert f" gpt-pt push {stages['export']} --repo USER/NAME --dry-run\n" in said.err
    push = ("push", str(stages["export"]), "--repo", "anna/x")
    assert gpt_pt(*push, "--private", "--dry-run") == 0
    assert f"next: gpt-pt {' '.join(push)} --private\n" in capsys.readouterr().err
    assert gpt_pt("export", str(stages["train"].parent), "--set", "export.formats=[bin]") == 0
    assert (Path(capsys.readouterr().out.strip()) / "pytorch_model.bin").is_file()


def test_export_of_a_folder_never_trains(run, capsys):
    _, stages = run
    assert gpt_pt("export", str(stages["train"]), "--set", "train.seed=1") == 2
    error = capsys.readouterr().err
    assert "would be trained again" in error
    assert f"run: gpt-pt export --config {stages['train']} --set train.seed=1\n" in error
    assert not list(stages["train"].parent.glob("train-*.partial"))


@pytest.mark.parametrize("command", ["export", "push"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("some/model", "some/model does not exist; export and push take a run's artifacts folder"),
        ("{model}", "english-nano is a model without a run; .* run: hf upload USER/NAME /.*nano"),
        ("{file}", "manifest.json is a file; export and push take a run's artifacts folder"),
        ("{empty}", "no finished `.*` stage in .*empty; run: gpt-pt "),
    ],
)
def test_export_and_push_say_what_they_take(run, tmp_path, capsys, command, given, message):
    _, stages = run
    places = {"file": stages["train"] / "manifest.json", "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    words = [given.format(model=asset_path("english-nano"), **places)]
    words += ["--repo", "anna/x"] if command == "push" else []
    assert gpt_pt(command, *words) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("command", ["export", "push", "serve"])
def test_a_folder_and_a_config_together_are_rejected(run, capsys, command):
    _, stages = run
    repo = ["--repo", "anna/x"] if command == "push" else []
    assert gpt_pt(command, str(stages["train"]), "--config", "my.yaml", *repo) == 2
    assert capsys.readouterr().err.endswith("leave out --config\n")


def test_a_run_of_another_version_is_reported(run, monkeypatch):
    _, stages = run
    artifact = locate.artifacts.read_manifest(stages["train"])
    artifact.manifest["config"]["train"]["old_key"] = 1
    monkeypatch.setattr(locate.artifacts, "read_manifest", lambda folder: artifact)
    message = r"(?s)was built by another version of gportuguese; .*train.old_key: unknown key"
    with pytest.raises(LocateError, match=message):
        locate.config_of_run(stages["train"], ())


def test_the_working_folder_may_be_the_stage_whose_config_is_taken(run, capsys, monkeypatch):
    _, stages = run
    for place, given in ((stages["train"], "."), (stages["train"] / "model", "..")):
        monkeypatch.chdir(place)
        assert gpt_pt("status", "--config", given) == 0
        assert "missing" not in capsys.readouterr().out
        assert find_stage(given, "train") == stages["train"]


def test_the_config_of_a_run_can_be_read_from_its_manifest(run):
    settings, stages = run
    config = load_config(None, settings)
    assert config_of(as_tree(config), (), "here") == config
    assert locate.config_of_run(stages["train"], ()) == config
    with pytest.raises(UserError, match="--set train.sed=1: unknown key; did you mean 'seed'"):
        locate.config_of_run(stages["train"], ("train.sed=1",))
