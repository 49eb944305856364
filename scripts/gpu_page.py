"""Writes docs/results/gpu.md from the reports of `gpu_report.py`: a section for each device."""

import json
import re
import shutil
import statistics
from pathlib import Path

NOT_MEASURED = "Not measured.\n"


def write_page(reports: list[Path], results: Path) -> Path:
    """Copies each report and its curves into `results/gpu`, and writes the page of all reports there.

    A report replaces an earlier one of the same device part by part; unmeasured parts are kept.
    """
    folder = results / "gpu"
    folder.mkdir(exist_ok=True)
    for path in reports:
        new = json.loads(path.read_text(encoding="utf-8"))
        name = new["parts"].get("device", {}).get("name", path.parent.name)
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        kept = folder / f"{slug}.json"
        if kept.exists():
            old = json.loads(kept.read_text(encoding="utf-8"))
            new["parts"] = {**old["parts"], **new["parts"]}
        text = json.dumps(new, indent=1, ensure_ascii=False)
        kept.write_text(text + "\n", encoding="utf-8")
        if (path.parent / "curves.png").exists():
            shutil.copyfile(path.parent / "curves.png", folder / f"{slug}.png")
    page = results / "gpu.md"
    page.write_text(page_text(folder), encoding="utf-8")
    return page


def page_text(folder: Path) -> str:
    """The whole page."""
    sections = [section(path) for path in sorted(folder.glob("*.json"))]
    if not sections:
        return f"# On a GPU\n\n{NOT_MEASURED}"
    head = (
        "# On a GPU\n\n    python scripts/gpu_report.py --minutes 9 --out runs/gpu\n"
        "    python scripts/gpu_report.py --page runs/gpu/report.json\n\n"
        "The second command writes this page. The reports are in [gpu/](gpu/).\n"
    )
    return "\n".join([head, *sections])


def section(path: Path) -> str:
    """One device."""
    report = json.loads(path.read_text(encoding="utf-8"))
    parts = report["parts"]
    writers = {
        "device": ("The device", device),
        "tests": ("The tests for CUDA", tests),
        "steps": ("A training step of GPT-2 small", steps),
        "plan": ("The predictions of `gpt-pt plan`", plan),
        "transfer": ("A transfer", transfer),
        "stop": ("Stopped and resumed", stop),
    }
    name = parts.get("device", {}).get("name", path.stem)
    blocks = [f"## {name}\n\nCommit {report['commit']}, {report['started'][:10]}.\n"]
    for key, (title, write) in writers.items():
        part = parts.get(key, {})
        try:
            text = write(part, path)
        except KeyError:  # the part ended before it wrote this value
            text = NOT_MEASURED
        state = part.get("state", "done")
        if state != "done":
            last = next((line for line in reversed(part.get("log", [])) if line.strip()), "")
            reason = f": `{last}`" if last and state.startswith("failed") else ""
            text += f"\nThis part {state}{reason}.\n"
        if part.get("commit", report["commit"]) != report["commit"]:
            text += f"\nMeasured at commit {part['commit']}.\n"
        blocks.append(f"### {title}\n\n{text}")
    return "\n".join(blocks)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def device(part: dict, _: Path) -> str:
    """Memory, versions and measured peaks of the device."""
    facts = [f"{part['memory_bytes'] / 1e9:.1f} GB"] if "memory_bytes" in part else []
    facts += [f"{key} {part[key]}" for key in ("driver", "cuda", "capability") if key in part]
    facts += [f"{name} {version}" for name, version in part["versions"].items()]
    peaks = [
        f"{part[key] / 1e12:,.2f} TFLOP/s in {key[:4]}"
        for key in ("bf16_flops", "fp16_flops")
        if key in part
    ]
    text = f"{', '.join(facts)}.\n\nMeasured: a large matrix product at {' and '.join(peaks)}"
    if "memory_bytes_per_second" in part:
        text += f"; memory copied at {part['memory_bytes_per_second'] / 1e12:.2f} TB/s"
    return text + ".\n"


def tests(part: dict, _: Path) -> str:
    """Counts of test results, and the failures."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in part["counts"].items())
    failures = "".join(f"- `{line}`\n" for line in part["failures"])
    return f"`pytest -m gpu`: {counts}.\n" + (f"\n{failures}" if failures else "")


def steps(part: dict, _: Path) -> str:
    """A table per case, and the costliest kernels of the first."""
    blocks = [
        "The programs take one step in turn; numbers are medians. The share is of a matrix product "
        "measured between the steps, in the same precision. `scripts/bench_step.py` describes the "
        "programs.\n"
    ]
    for case in part["cases"]:
        settings, shape, programs = case["case"], case["shape"], case["programs"]
        tokens = settings["batch"] * settings["passes"] * shape["block"]
        flops = tokens * step_flops(shape)
        ours = programs.get("ours", {}).get("seconds")
        rows = []
        for name, program in programs.items():
            if "seconds" not in program:
                rows.append((name, program.get("error", "no answer"), "", "", "", ""))
                continue
            seconds = statistics.median(program["seconds"])
            pairs = zip(ours, program["seconds"], strict=True) if ours else ()
            ratios = [theirs / own for own, theirs in pairs]
            memory = program["memory_bytes"]
            rows.append(
                (
                    name,
                    f"{tokens / seconds:,.0f}",
                    f"{statistics.median(ratios):.2f}" if ratios else "-",
                    f"{flops / seconds / case['peak_flops']:.3f}",
                    "-" if memory is None else f"{memory / 1e9:.1f}",
                    f"{program['first_step_seconds']:.1f}",
                )
            )
        head = (
            "program",
            "tokens/s",
            "ours is ... as fast",
            "share of peak",
            "GB",
            "first step (s)",
        )
        blocks.append(
            f"{settings['name']}: {settings['passes']} x {settings['batch']} x {shape['block']}, "
            f"dropout {settings['dropout']}"
            + (", compiled" if settings["compile"] else "")
            + f"\n\n{table(head, rows)}"
        )
    kernels = part["cases"][0]["programs"].get("ours", {}).get("costliest")
    if kernels:
        rows = [
            (f"`{row['name'][:60]}`", str(row["calls"]), f"{row['ms']:.2f}", f"{row['share']:.3f}")
            for row in kernels
        ]
        name = part["cases"][0]["case"]["name"]
        blocks.append(
            f"The costliest operations of our step ({name}):\n\n"
            + table(("operation", "calls", "ms", "share"), rows)
        )
    return "\n".join(blocks)


def step_flops(shape: dict) -> float:
    """FLOPs per token, as in `bench_step.Shape.flops`."""
    from bench_step import Shape

    return Shape(**shape).flops(1)


def plan(part: dict, _: Path) -> str:
    """A table of predictions and measurements."""
    rows = []
    for case in part["cases"]:
        row = [case["case"]]
        for planned, measured, scale in (
            (case["planned_seconds"], case["seconds"], 1.0),
            (case["planned_bytes"], case["bytes"], 1e-9),
        ):
            known = planned is not None and measured is not None
            row += ["-" if each is None else f"{each * scale:.3f}" for each in (planned, measured)]
            row.append(f"{planned / measured:.2f}" if known else "-")
        rows.append(tuple(row))
    head = ("case", "s planned", "s measured", "ratio", "GB planned", "GB measured", "ratio")
    return table(head, rows)


def transfer(part: dict, path: Path) -> str:
    """Epoch table, samples, curves."""
    took = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in part["stage_seconds"].items())
    text = f"Stages: {took}.\n"
    if "epochs" in part:
        rate = part["tokens"] / part["train_seconds"]
        text += (
            f"\n{part['tokens']:,} training tokens in {part['train_seconds']:.0f} s from start to end, "
            f"validations included: {rate:,.0f} tokens/s; peak memory "
            f"{part['peak_memory_bytes'] / 1e9:.1f} GB.\n"
        )
        epochs = part["epochs"]
        if not isinstance(epochs, str):  # the evaluation did not end
            epochs = table(tuple(epochs[0]), [tuple(row.values()) for row in epochs])
        text += f"\n{epochs.strip()}\n"
        if "samples" in part:
            text += f"\nSamples:\n\n{part['samples'].strip()}\n"
        if "curves" in part:
            text += f"\n![Loss and accuracy after each epoch](gpu/{path.stem}.png)\n"
    return text


def stop(part: dict, _: Path) -> str:
    """The exit codes of the stopped and of the resumed run."""
    text = f"After SIGTERM in the middle of training: exit code {part['stopped_with']}, "
    text += f"{part['checkpoints']} checkpoints.\n"
    if "ended_with" in part:
        lines = "".join(f"\n    {line}\n" for line in part["resumed"])
        text += f"After the same command again: exit code {part['ended_with']}.\n{lines}"
    return text
