import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gportuguese import cli
from gportuguese.cli.arguments import make_parser


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
    out = capsys.readouterr().out
    assert out.startswith("| after ... epochs")
    assert re.search(r"\| bits per byte \| \d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\] \|", out)
    assert re.search(r"\| change \| -\d\.\d{4} \[-\d\.\d{4}, -\d\.\d{4}\] \|", out)
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--epochs", "3"), "no option --epochs; settings are changed by --set SECTION"),
        (("train", "--cofnig=v100"), "no option --cofnig; did you mean --config?"),
        (("train", "v100"), "unexpected argument 'v100'; to choose a config, write --config v100"),
        (("survey", "dump.xml", "--page", "3", "--what"), "no option --what\n"),
        (("serve", "a", "b"), "unexpected argument 'b'\n"),
        (("serve", "--port", "99999"), "'99999' is not a number from 0 to 65535"),
        (("serve", "--max-queue", "-1"), "'-1' is not a number of at least 0"),
        (("serve", "--time-limit", "nan"), "'nan' is not a number above 0"),
    ],
)
def test_a_wrong_option_gets_the_usage_of_its_command(words, message, capsys):
    assert gpt_pt(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"usage: gpt-pt {words[0]} ")


def test_options_before_the_command_are_rejected(capsys):
    assert gpt_pt("--config", "v100", "train") == 2
    assert "options stand after the command: gpt-pt COMMAND --config" in capsys.readouterr().err


def commands():
    (action,) = [each for each in make_parser()._actions if each.dest != "help" and each.choices]
    return action.choices


@pytest.mark.parametrize("name", commands())
def test_help_explains_every_argument_within_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = commands()[name]
    for action in parser._actions:
        takes_value = action.option_strings and action.nargs != 0
        assert action.help, action
        if takes_value and not action.required and action.dest not in ("set",):
            assert "default" in action.help, action
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert f"usage: gpt-pt {name} " in text


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    "words", [("config",), ("config", "--list"), ("status",), ("--help",), ("train", "--help")]
)
def test_a_full_disk_behind_standard_output_is_one_sentence(words, tmp_path):
    with FULL.open("w") as full:
        done = process(*words, cwd=tmp_path, stdout=full)
    assert done.returncode == 2
    (*_, last) = done.stderr.splitlines()
    assert last == "gpt-pt: cannot write to standard output: No space left on device"
    assert "Traceback" not in done.stderr


def process(*words, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, "-m", "gportuguese", *words], text=True, timeout=60, **options
    )


def test_standard_output_may_be_closed(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)  # like `| head`, which has read enough
    done = process("config", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    done = process("config", cwd=tmp_path, stdout=None, preexec_fn=lambda: os.close(1))
    assert done.returncode == 2
    assert done.stderr.startswith("gpt-pt: standard output is closed; redirect it")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
def test_messages_that_cannot_be_written_do_not_end_a_command(tmp_path):
    with FULL.open("w") as full:
        for options in ({"stderr": full}, {"preexec_fn": lambda: os.close(2)}):
            done = process("config", cwd=tmp_path, **options)
            assert done.returncode == 0
            assert yaml.safe_load(done.stdout)["name"] == "demo"


def test_what_standard_output_cannot_encode_is_escaped(tmp_path):
    done = process("config", cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, "Lisboa \\xe9 a capital" in done.stdout) == (0, True)


SIGNALLED = """
import os, signal, sys
class Signal:
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), number)
            for _ in range(10**9): pass
module, number = sys.argv[1], int(sys.argv[2])
sys.argv[:3] = ["gpt-pt"]
sys.meta_path.insert(0, Signal())
from gportuguese.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "stop", "words", "code", "said"),
    [
        ("yaml", "SIGINT", ["config"], 130, "gpt-pt: interrupted\n"),
        ("gportuguese.dump", "SIGINT", ["train", "--set", "name=a b"], 130, None),
        ("torch", "SIGINT", ["plan"], 130, "gpt-pt: interrupted\n"),
        ("gportuguese.dump", "SIGTERM", ["train", "--set", "name=a b"], 143, None),
        ("torch", "SIGTERM", ["plan"], -signal.SIGTERM, ""),
    ],
)
def test_a_signal_during_the_imports_is_one_sentence(tmp_path, module, stop, words, code, said):
    command = [sys.executable, "-c", SIGNALLED, module, str(int(signal.Signals[stop])), *words]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    how = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[stop]
    said = f"gpt-pt: {how}; resume with: gpt-pt train --set 'name=a b'\n" if said is None else said
    assert (done.returncode, done.stderr) == (code, said)


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
