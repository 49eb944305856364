"""The report on a GPU, tried on the CPU with tiny models."""

import json
import os
import subprocess
import sys
import time

import pytest

PARTS = ("device", "tests", "steps", "plan", "transfer", "stop")


def run(root, out, *more):
    words = [sys.executable, "scripts/gpu_report.py", "--tiny", "--out", str(out), *more]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        words, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
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
@pytest.mark.timeout(300)
def test_the_time_limit_ends_parts_and_all_they_started(request, tmp_path):
    root, out = request.config.rootpath, tmp_path / "out"
    start = time.monotonic()
    report = run(root, out, "--minutes", "0.5", "--parts", "tests", "steps", "transfer")
    assert time.monotonic() - start < 60
    states = [report["parts"][name]["state"] for name in ("tests", "steps", "transfer")]
    assert any(state.startswith("stopped after") for state in states), states
    assert not processes_of(out)
