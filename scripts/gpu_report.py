"""Tests and measures this program on a GPU in a few minutes: device, tests, steps, plan, transfer, stop.

    python scripts/gpu_report.py --minutes 9 --out FOLDER --base model.gguf --documents texts.parquet
    python scripts/gpu_report.py --page FOLDER/report.json      # writes docs/results/gpu.md

It works from a source tree (PYTHONPATH=src) and without a network. Every part runs in its own process
with its own time limit; if one fails or takes too long, the others still run. Each result is written to
FOLDER/report.json at once. Without --base and --documents, the packaged model and articles are used.
`--tiny` tests the report itself on a CPU, in about three minutes.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Seconds, of nine minutes in all; None is the time that the later parts leave.
LIMITS = {"device": 30, "tests": 120, "steps": 150, "plan": 30, "transfer": None, "stop": 60}
TINY = "3,32,2,300"  # layers, width, heads, vocabulary
SMALL = "12,768,12,50257"
PROGRAMS = ("ours", "bare", "trainer best", "original")
GPU_CASES = (
    "bf16,batch=16,dropout=0,compile",
    "config=configs/h100.yaml",
    "fp16,batch=8",
    "bf16,batch=16,dropout=0",
    "bf16,batch=8,dropout=0,compile",
    "bf16,batch=8,dropout=0",
    "fp16,batch=16",
)
TINY_CASES = ("bf16,batch=4,dropout=0", "fp16,batch=2,passes=2")
# Tokens a second, if no step was measured: any useful card is at least as fast.
FALLBACK_RATE = {"cuda": 20_000.0, "cpu": 1_000.0}


def main() -> None:
    """Runs all parts, or one of them (--part), or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--base", help="base model to transfer: folder, .gguf or Hub id")
    parser.add_argument("--documents", help="training text, like corpus.documents")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--commit", help="commit of this source tree, if git does not know it")
    parser.add_argument("--tiny", action="store_true", help="use tiny models on the CPU")
    parser.add_argument("--page", nargs="+", type=Path, help="write gpu.md from these reports")
    parser.add_argument("--part", choices=LIMITS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tests", default="tests/test_gpu.py", help=argparse.SUPPRESS)
    parser.add_argument("--break", nargs="+", dest="broken", default=[], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.page:
        from gpu_page import write_page

        print(write_page(args.page, ROOT / "docs/results"))
    elif args.part:
        if args.part in args.broken:
            raise SystemExit("broken on purpose")
        run = {
            "device": device,
            "tests": tests,
            "steps": steps,
            "plan": plan,
            "transfer": transfer,
            "stop": stop,
        }[args.part]
        run(args)
    else:
        report(args)


# ---- all parts


def report(args) -> None:
    """Runs the parts in order."""
    if not args.tiny:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("no CUDA device; --tiny tries the report on the CPU")
    args.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * args.minutes
    head = {
        "commit": args.commit or commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "minutes": args.minutes,
        "tiny": args.tiny,
        "base": args.base and Path(args.base).name,
        "documents": args.documents and Path(args.documents).name,
    }
    path = args.out / "report.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}
    save(args.out, {**head, "parts": old["parts"]})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the part
    with tempfile.TemporaryDirectory(prefix="gpu-report-") as work:
        for index, part in enumerate(args.parts):
            scale = args.minutes / 9
            later = sum(scale * (LIMITS[each] or 0) for each in args.parts[index + 1 :])
            left = deadline - time.monotonic()
            limit = LIMITS[part] and min(left, scale * LIMITS[part])
            run_part(args, part, limit or left - later, Path(work))
    print(args.out / "report.json")


def run_part(args, part: str, seconds: float, work: Path) -> None:
    """Runs one part with a time limit, then ends every process that it started."""
    # parts of earlier commits stay in the report
    record(args.out, part, replace=True, commit=read(args.out)["commit"], state="running")
    if seconds < 5:
        record(args.out, part, state="no time was left")
        return
    words = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
    words += ["--part", part, "--seconds", str(seconds), "--work", str(work)]
    log_path = args.out / "log.txt"
    start = time.monotonic()
    print(f"{part}: at most {seconds:.0f} s", flush=True)
    with log_path.open("ab") as log:
        log.write(f"\n==== {part}\n".encode())
        log.flush()
        begin = log.tell()
        child = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            code = child.wait(seconds)
            state = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            state = f"stopped after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    values = {"state": state, "seconds": round(time.monotonic() - start, 1)}
    if state != "done":
        with log_path.open("rb") as log:
            log.seek(begin)
            values["log"] = log.read().decode(errors="replace").splitlines()[-25:]
    record(args.out, part, **values)
    print(f"{part}: {state}", flush=True)


def record(out: Path, part: str, replace: bool = False, **values) -> None:
    """Adds values of a part to the report."""
    tree = read(out)
    old = {} if replace else tree["parts"].get(part, {})
    tree["parts"][part] = {**old, **values}
    save(out, tree)


def read(out: Path) -> dict:
    """Reads the report."""
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def save(out: Path, tree: dict) -> None:
    """Writes the report atomically."""
    scratch = out / "report.tmp"
    scratch.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(out / "report.json")


def commit() -> str:
    """The commit of this source tree."""
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


# ---- the parts


def device(args) -> None:
    """Records the device's name, versions and measured peaks."""
    import torch
    from bench_step import device_name, matmul_flops, versions

    where = "cpu" if args.tiny else "cuda:0"
    values = {"name": device_name(where), "versions": {"python": sys.version.split()[0]}}
    values["versions"] |= versions()
    if where != "cpu":
        properties = torch.cuda.get_device_properties(0)
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
        values |= {
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": driver or "unknown",
            "cuda": torch.version.cuda,
        }
    record(args.out, "device", **values)
    for precision in ("bf16", "fp16"):
        record(args.out, "device", **{f"{precision}_flops": matmul_flops(where, precision)})
    record(args.out, "device", memory_bytes_per_second=copy_rate(where))


def copy_rate(where: str) -> float:
    """Bytes per second, read and written, of copying one large tensor."""
    import torch
    from bench_step import wait_for

    source = torch.ones(2**26 if where == "cpu" else 2**30, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(6):
        wait_for(where)
        begin = time.perf_counter()
        target.copy_(source)
        wait_for(where)
        best = min(best, time.perf_counter() - begin)
    return 2 * source.numel() / best


class Lines:
    """The whole lines that a process has written so far, read without waiting.

    pytest writes a test's name when it starts and its verdict when it ends, so a line may be read in pieces.
    """

    def __init__(self, pipe) -> None:
        os.set_blocking(pipe.fileno(), False)
        self.pipe, self.rest = pipe, b""

    def read(self) -> list[str]:
        """The lines that were completed since the last call."""
        *lines, self.rest = (self.rest + (self.pipe.read() or b"")).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


def tests(args) -> None:
    """Runs the CUDA tests; those that compile run in parallel with the others.

    Warnings are not errors here, because the library versions differ from CI's.
    """
    words = [sys.executable, "-m", "pytest", "-m", "gpu", args.tests, "-v", "-n", "0"]
    words += ["-p", "no:cacheprovider", "--no-header", "--tb=short", "-W", "default", "-k"]
    halves = [
        subprocess.Popen([*words, which], cwd=ROOT, stdout=subprocess.PIPE)
        for which in ("compile", "not compile")
    ]
    outputs = [Lines(child.stdout) for child in halves]
    lines: list[list[str]] = [[], []]
    is_over = False
    while not is_over:
        is_over = all(child.poll() is not None for child in halves)
        for so_far, output in zip(lines, outputs, strict=True):
            for line in output.read():
                print(line, flush=True)
                so_far.append(line)
        every = lines[0] + lines[1]
        verdicts = [re.search(r"::\S+.* (PASSED|FAILED|SKIPPED|ERROR)\b", line) for line in every]
        found = [verdict[1].lower() for verdict in verdicts if verdict]
        record(
            args.out,
            "tests",
            counts={verdict: found.count(verdict) for verdict in sorted(set(found))},
            failures=[line for line in every if re.match(r"(FAILED|ERROR) ", line)],
        )
        if not is_over:
            time.sleep(1)
    codes = {child.returncode for child in halves}
    if codes not in ({0}, {0, 5}):  # 5: one half has no tests
        raise SystemExit(1)


def steps(args) -> None:
    """Measures a step of GPT-2 small in several programs."""
    cases = TINY_CASES
    if not args.tiny:
        import torch

        has_bf16 = torch.cuda.get_device_capability()[0] >= 8
        cases = [case for case in GPU_CASES if has_bf16 or case.startswith("fp16")]
    lines = args.work / "steps.jsonl"
    words = [sys.executable, str(ROOT / "scripts/bench_step.py"), "--json", str(lines), "--profile"]
    words += ["--shape", TINY if args.tiny else SMALL, "--block", "64" if args.tiny else "1024"]
    words += ["--steps", "3" if args.tiny else "20", "--programs", *PROGRAMS]
    words += [word for case in cases for word in ("--case", case)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            print(line, end="", flush=True)
            if lines.exists():
                text = lines.read_text(encoding="utf-8")
                record(args.out, "steps", cases=[json.loads(each) for each in text.splitlines()])
    if child.returncode:
        raise SystemExit(child.returncode)


def plan(args) -> None:
    """Compares the predictions of `gpt-pt plan` with the measured steps."""
    from gportuguese import load_config
    from gportuguese.plan import (
        count_flops,
        count_memory,
        cpu_step_seconds,
        measure_cpu,
        needed_bytes,
        read_shape,
        steps_of,
    )
    from gportuguese.plan.devices import DEVICES

    kind = "cpu" if args.tiny else "cuda"
    layers, width, heads, vocab = (TINY if args.tiny else SMALL).split(",")
    name = read(args.out)["parts"].get("device", {}).get("name", "")
    card = next((each for each in DEVICES if each.name.lower() in name.lower()), None)
    results = []
    for measured in read(args.out)["parts"].get("steps", {}).get("cases", []):
        case, block = measured["case"], measured["shape"]["block"]
        settings = [
            f"align={{base: {{layers: {layers}, width: {width}, heads: {heads}, positions: {block}, "
            f"dropout: {case['dropout']}}}, method: random}}",
            f"tokenizer.vocab_size={vocab}",
            f"tokens.block_size={block}",
            f"train.precision={case['precision']}",
            f"train.global_batch_size={case['batch'] * case['passes']}",
            f"runtime.micro_batch_size={case['batch']}",
            f"runtime.vocab_multiple={64 if kind == 'cuda' else 1}",
            f"runtime.loss_rows={8192 if kind == 'cuda' else 1024}",
        ]
        config = load_config(case["config"], tuple(settings))
        shape, step = read_shape(config), steps_of(config, kind)[-1]
        peak, work = count_memory(config, shape, step).peak_bytes, count_flops(config, shape, step)
        seconds = None
        if kind == "cpu":
            seconds = cpu_step_seconds(measure_cpu(config, shape, step), step, shape)
        elif card is not None and case["precision"] in card.peaks:
            tokens = case["batch"] * case["passes"] * block
            flops = tokens * work.train + work.update
            seconds = flops / card.flops_per_second(case["precision"])
        ours = measured["programs"].get("ours", {})
        results.append(
            {
                "case": case["name"],
                "planned_seconds": seconds,
                "seconds": statistics.median(ours["seconds"]) if "seconds" in ours else None,
                "planned_bytes": peak,
                "bytes": ours.get("memory_bytes"),
                "planned_bytes_in_all": needed_bytes(kind, peak),
            }
        )
        record(args.out, "plan", cases=results)
    if not results:
        raise SystemExit("no step was measured")


def settings_of(args) -> list[str]:
    """`gpt-pt` arguments of the transfer, without the number of tokens."""
    config = "configs/h100.yaml" if args.base or args.documents else "configs/demo.yaml"
    sets = [
        "name=gpu-report",
        f"runtime.artifacts_dir={args.work / 'artifacts'}",
        f"runtime.device={'cpu' if args.tiny else 'cuda'}",
        "train.global_batch_size=32",  # few tokens, so smaller batches and more steps
        "train.phases=[{name: all, epochs: 2, trainable_groups: 4, lr_max: 1.0e-3, lr_ratio: 1}]",
        f"train.valid_tokens={4096 if args.tiny else 2**18}",
        f"evaluate.tokens={4096 if args.tiny else 2**19}",
        "evaluate.sample_tokens=40",
    ]
    if args.base:
        sets.append(f"align.base={args.base}")
    if args.documents:
        sets += [f"corpus.documents={args.documents}", "tokenizer.vocab_size=32768"]
        sets += ["align.vector_tokens=3_000_000"]  # more would take longer than everything else
    if args.base and not args.documents:  # the demo's articles, with the demo's settings for them
        sets += ["dump.source=package:demo-ptwiki.xml.bz2", "tokenizer.vocab_size=4096"]
        sets += ["corpus.valid_per_mille=120", "corpus.test_per_mille=80", "tokens.block_size=256"]
    if not args.base and args.documents:
        sets += ["align.base=package:english-nano", "tokens.block_size=256"]
    if args.tiny:
        sets += ["runtime.compile=false", "train.precision=fp32", "train.optimizer=adamw"]
    elif not args.base and not args.documents:
        sets += ["train.precision=fp16"]
    return ["--config", str(ROOT / config), *(word for each in sets for word in ("--set", each))]


def gpt_pt(args, command: str, *more: str) -> list[str]:
    """The command line of a `gpt-pt` command."""
    sets = [word for each in more for word in ("--set", each)]
    return [sys.executable, "-m", "gportuguese", command, *settings_of(args), *sets]


def tokens_in(args, seconds: float) -> int:
    """Training tokens that fit into `seconds` at the rate of the fastest measured step."""
    measured = read(args.out)["parts"].get("steps", {}).get("cases", [])
    rates = [
        each["case"]["batch"]
        * each["case"]["passes"]
        * each["shape"]["block"]
        / statistics.median(each["programs"]["ours"]["seconds"])
        for each in measured
        if "seconds" in each["programs"].get("ours", {})
    ]
    rate = max(rates, default=FALLBACK_RATE["cpu" if args.tiny else "cuda"])
    if args.tiny:  # the transferred model is larger than those of the steps
        rate = FALLBACK_RATE["cpu"]
    return max(32 * (256 if args.tiny else 1024), int(rate * seconds))


def transfer(args) -> None:
    """Takes a base model into the language of the documents, in the available time."""
    start = time.monotonic()
    seconds: dict[str, float] = {}
    for stage in ("corpus", "tokenizer", "tokens", "align"):
        begin = time.monotonic()
        subprocess.run(gpt_pt(args, stage), check=True)
        seconds[stage] = round(time.monotonic() - begin, 1)
        record(args.out, "transfer", stage_seconds=seconds)
    # two fifths of the time go to loading, compiling, validation and evaluation
    left = 0.6 * (args.seconds - (time.monotonic() - start))
    epoch = f"train.epoch_tokens={tokens_in(args, left / 2)}"
    record(args.out, "transfer", settings=[*settings_of(args)[3::2], epoch])
    for stage in ("train", "evaluate"):
        begin = time.monotonic()
        subprocess.run(gpt_pt(args, stage, epoch), check=True)
        seconds[stage] = round(time.monotonic() - begin, 1)
        record(args.out, "transfer", stage_seconds=seconds, **finished(args, stage))


def finished(args, stage: str) -> dict:
    """The results of a finished stage of the transfer."""
    folder = max(
        (args.work / "artifacts").glob(f"{stage}-*/"), key=lambda path: path.stat().st_mtime
    )
    if stage == "train":
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["facts"]
        with (folder / "epochs.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            "epochs": rows,
            "tokens": facts["tokens"],
            "train_seconds": facts["seconds"],
            "peak_memory_bytes": facts["peak_memory_bytes"],
        }
    shutil.copyfile(folder / "curves.png", args.out / "curves.png")
    return {
        name: (folder / f"{name}.md").read_text(encoding="utf-8") for name in ("epochs", "samples")
    } | {"curves": "curves.png"}


def stop(args) -> None:
    """Stops a training run with SIGTERM in the middle and resumes it."""
    more = ("train.seed=1", f"train.epoch_tokens={tokens_in(args, args.seconds / 4)}")
    words = gpt_pt(args, "train", *more)
    artifacts = args.work / "artifacts"
    first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in first.stderr:
        print(line, end="", flush=True)
        if re.search(r"epoch 0\b", line):  # the first measurement is done; training starts
            time.sleep(2 if args.tiny else 8)
            first.send_signal(signal.SIGTERM)
    code = first.wait()
    checkpoints = sorted(artifacts.glob("train-*.partial/*/checkpoints/[0-9]*"))
    record(args.out, "stop", stopped_with=code, checkpoints=len(checkpoints))
    if code != 128 + signal.SIGTERM or not checkpoints:
        raise SystemExit(f"SIGTERM: exit code {code}, {len(checkpoints)} checkpoints")
    second = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False)
    print(second.stderr, flush=True)
    resumed = [line for line in second.stderr.splitlines() if "/checkpoints/" in line]
    record(args.out, "stop", resumed=resumed[:1], ended_with=second.returncode)
    if second.returncode or not resumed:
        raise SystemExit(f"resuming: exit code {second.returncode}, {len(resumed)} resumed")


if __name__ == "__main__":
    main()
