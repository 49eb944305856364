"""The report on a GPU, tried on the CPU with tiny models."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace

import pytest

from gportuguese import load_config

PARTS = ("device", "tests", "steps", "plan", "transfer", "stop")


def run(root, out, *more):
    words = [sys.executable, "scripts/gpu_report.py", "--tiny", "--out", str(out), *more]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=root, env=environment, **pipes) as process:
        try:
            _, errors = process.communicate()
        except BaseException:
            process.terminate()  # so that it ends its parts, which run in sessions of their own
            raise
    assert process.returncode == 0, errors
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def processes_of(out):
    """Command lines of processes that name a folder."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(out) in line and "ps -eo" not in line]


def page(root, out, results):
    words = [sys.executable, "-c"]
    words += [
        "import sys; from pathlib import Path; from gpu_page import write_page\n"
        "print(write_page([Path(p) for p in sys.argv[2:]], Path(sys.argv[1])))",
        str(results),
        *([str(out / "report.json")] if out else []),
    ]
    results.mkdir(exist_ok=True)
    done = subprocess.run(words, cwd=root / "scripts", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (results / "gpu.md").read_text(encoding="utf-8")


def test_a_page_without_reports_says_not_measured(request, tmp_path):
    assert (
        page(request.config.rootpath, None, tmp_path / "results") == "# On a GPU\n\nNot measured.\n"
    )


def test_without_a_gpu_it_says_what_to_do(request, tmp_path):
    words = [sys.executable, "scripts/gpu_report.py", "--out", str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        words,
        cwd=request.config.rootpath,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "no CUDA device; --tiny tries the report on the CPU\n"


def test_a_part_that_fails_is_recorded_and_the_next_one_runs(request, tmp_path):
    root, out = request.config.rootpath, tmp_path / "out"
    report = run(root, out, "--parts", "steps", "device", "--break", "steps", "--minutes", "9")
    assert report["parts"]["steps"]["state"] == "failed with exit code 1"
    assert report["parts"]["steps"]["log"][-1] == "broken on purpose"
    assert report["parts"]["device"]["state"] == "done"
    assert report["parts"]["device"]["bf16_flops"] > 1e8
    text = page(root, out, tmp_path / "results")
    assert "This part failed with exit code 1: `broken on purpose`." in text
    assert "TFLOP/s in bf16" in text
    assert text.count("Not measured.") == 5
    assert not processes_of(out)


SLOW = """
import os, signal, time, pytest
pytestmark = pytest.mark.gpu
def test_slow():
    time.sleep(1.5)  # its name is read before its verdict
def test_skipped():
    pytest.skip("no reason")
"""


@pytest.mark.parametrize(
    ("text", "state", "counts"),
    [
        (SLOW, "done", {"passed": 1, "skipped": 1}),
        ("", "failed with exit code 1", {}),
        (
            SLOW + "def test_compile():\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
            "failed with exit code 1",
            {"passed": 1, "skipped": 1},
        ),
    ],
)
def test_tests_are_counted_and_a_crash_is_a_failure(request, tmp_path, text, state, counts):
    (tmp_path / "test_fake.py").write_text(text, encoding="utf-8")
    words = ("--parts", "tests", "--tests", str(tmp_path / "test_fake.py"))
    part = run(request.config.rootpath, tmp_path / "out", *words)["parts"]["tests"]
    assert part["state"] == state, part
    assert part["counts"] == counts


@pytest.mark.slow
def test_counts_are_kept_when_the_time_is_over(request, tmp_path):
    (tmp_path / "test_fake.py").write_text(
        SLOW + "def test_endless():\n    time.sleep(600)\n", encoding="utf-8"
    )
    words = ("--parts", "tests", "--tests", str(tmp_path / "test_fake.py"), "--minutes", "0.9")
    part = run(request.config.rootpath, tmp_path / "out", *words)["parts"]["tests"]
    assert part["state"] == "stopped after 12 s"
    assert part["counts"] == {"passed": 1, "skipped": 1}


def test_each_part_has_the_commit_that_it_was_measured_at(request, tmp_path):
    root, out = request.config.rootpath, tmp_path / "out"
    run(root, out, "--commit", "aaa", "--parts", "steps", "stop", "--break", "steps", "stop")
    report = run(root, out, "--commit", "bbb", "--parts", "stop", "--break", "stop")
    assert report["commit"] == report["parts"]["stop"]["commit"] == "bbb"
    assert report["parts"]["steps"]["commit"] == "aaa"
    text = page(root, out, tmp_path / "results")
    assert "Commit bbb, " in text
    assert text.count("Measured at commit ") == text.count("Measured at commit aaa.") == 1


def test_a_base_alone_is_trained_on_the_articles_of_the_demo(request, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(request.config.rootpath / "scripts")
    from gpu_report import settings_of

    args = Namespace(base="package:english-nano", documents=None, tiny=True, work=tmp_path)
    _, path, *flags = settings_of(args)
    config, demo = load_config(path, tuple(flags[1::2])), load_config()
    assert config.name == "gpu-report"
    assert config.dump == demo.dump
    assert config.corpus == demo.corpus
    assert config.tokenizer == demo.tokenizer
    assert config.tokens == demo.tokens


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("broken", [(), PARTS[::2], PARTS[1::2]])
def test_every_part_runs_whatever_the_others_do(request, tmp_path, broken):
    root, out = request.config.rootpath, tmp_path / "out"
    start = time.monotonic()
    report = run(root, out, *(["--break", *broken] if broken else []))
    assert time.monotonic() - start < 9 * 60
    for name in PARTS:
        state = report["parts"][name]["state"]
        # without steps there is nothing to plan for
        fails = name in broken or (name == "plan" and "steps" in broken)
        assert state == ("failed with exit code 1" if fails else "done"), report["parts"][name]
    if "stop" not in broken:
        assert report["parts"]["stop"]["stopped_with"] == 143
        assert report["parts"]["stop"]["ended_with"] == 0
    if "transfer" not in broken:
        assert (out / "curves.png").stat().st_size
    text = page(root, out, tmp_path / "results")
    assert text.count("Not measured.") == len(
        [p for p in PARTS if "failed" in str(report["parts"][p])]
    )
    assert not processes_of(out)


@pytest.mark.slow
def test_the_time_limit_ends_parts_and_all_they_started(request, tmp_path):
    root, out = request.config.rootpath, tmp_path / "out"
    start = time.monotonic()
    report = run(root, out, "--minutes", "0.5", "--parts", "tests", "steps", "transfer")
    assert time.monotonic() - start < 60
    states = [report["parts"][name]["state"] for name in ("tests", "steps", "transfer")]
    assert any(state.startswith("stopped after") for state in states), states
    assert not processes_of(out)
