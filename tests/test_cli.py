import io
import subprocess
import sys

import pytest
import yaml

from gportuguese import cli


def gpt_pt(*words):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return caught.value.code


def sets(overrides):
    return [word for override in overrides for word in ("--set", override)]


def test_train_builds_all_stages_once_and_later_commands_reuse_them(
    tiny_overrides, capsys, caplog, monkeypatch
):
    words = sets(tiny_overrides)
    assert gpt_pt("status", *words) == 0
    assert capsys.readouterr().out.count("missing") == 8
    assert gpt_pt("train", *words) == 0
    out = capsys.readouterr().out
    assert "| 3 | all |" in out
    assert gpt_pt("status", *words) == 0
    status = capsys.readouterr().out
    assert status.count("done") == 6
    assert "next: gpt-pt evaluate" in status
    caplog.clear()
    assert gpt_pt("evaluate", *words) == 0
    assert capsys.readouterr().out.startswith("| after ... epochs")
    assert (
        gpt_pt("generate", str(next_model(tiny_overrides)), "o rio", "--max-new-tokens", "5") == 0
    )
    captured = capsys.readouterr()
    assert captured.out.startswith("o rio")
    assert "5 tokens, " in captured.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("o rio\na cidade\n"))
    assert gpt_pt("generate", str(next_model(tiny_overrides)), "--max-new-tokens", "5") == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert (first[:5], second[:8]) == ("o rio", "a cidade")
    model = str(next_model(tiny_overrides))
    assert (
        gpt_pt("generate", model, model, "o rio") == 2
    )  # as from a shell pattern that matches two
    assert "expected one model, got" in capsys.readouterr().err
    assert gpt_pt("generate", model, "o rio / " * 100, "--window", "--max-new-tokens", "1") == 0
    assert gpt_pt("train", *words) == 0
    assert "building" not in capsys.readouterr().err


def next_model(overrides):
    from gportuguese import Pipeline, load_config

    return Pipeline(load_config(None, overrides)).open("train").folder / "model"


def test_config_output_can_be_read_back(capsys):
    assert gpt_pt("config", "--set", "train.seed=7") == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["seed"] == 7


def test_importing_is_fast_and_loads_no_heavy_packages():
    code = (
        "import sys, time; start = time.process_time(); import gportuguese; "
        "print(time.process_time() - start, *(m for m in ('torch', 'transformers', 'fastai', "
        "'datasets', 'pyarrow', 'numpy') if m in sys.modules))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds, *heavy = min(run.stdout.split() for run in runs)
    assert not heavy
    assert float(seconds) < 0.3


def test_status_loads_no_heavy_packages(tiny_overrides, tmp_path):
    source = tmp_path / "english.jsonl"
    source.write_text('{"text": "a"}\n', encoding="utf-8")
    words = sets((*tiny_overrides, "align={base: package:english-nano, method: bridge}"))
    words += ["--set", f"align.source_documents={source}"]
    assert gpt_pt("corpus", *sets(tiny_overrides)) == 0
    code = (
        "import sys; from gportuguese import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print(*({'torch', 'transformers', 'fastai', 'datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "status", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    *stages, following, heavy = run.stdout.splitlines()
    assert [line.split()[1] for line in stages[:3]] == ["done", "done", "missing"]
    assert following.startswith("next: gpt-pt tokenizer --set ")
    assert heavy == ""


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("lrfind", "did you mean 'lr-find'?"),
        ("x", "known: dump"),
    ],
)
def test_a_mistyped_command_gets_a_suggestion(word, hint, capsys):
    assert gpt_pt(word) == 2
    assert f"no command {word!r}; {hint}" in capsys.readouterr().err


def test_help_of_the_module_lists_the_commands():
    run = subprocess.run(
        [sys.executable, "-m", "gportuguese", "--help"], capture_output=True, text=True, check=True
    )
    for command in (
        "dump",
        "corpus",
        "tokenizer",
        "tokens",
        "align",
        "train",
        "evaluate",
        "lr-find",
    ):
        assert command in run.stdout
