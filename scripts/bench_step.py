"""Measures a training step of GPT-2 small in several programs: seconds and peak memory.

    python scripts/bench_step.py --batch 2 --block 1024 --steps 5
    python scripts/bench_step.py --case fp16,batch=8 --case bf16,batch=16,compile --json steps.jsonl

Every program runs its own real training loop in its own process. After a warm-up, the script lets each
take one step in turn. It prints medians, tokens per second, ratios, the share of the peak of a matrix
product measured between the steps, and the peak memory. On the CPU, memory is the resident set minus the
resident set before the program made its model; on CUDA, the most that PyTorch allocated.

Programs:

    ours          the fastai `Learner` of a real run with all its callbacks
    bare          plain PyTorch
    trainer best  Hugging Face's `Trainer` with mixed precision, fused AdamW and the case's `compile`
    trainer       the `Trainer` at its defaults
    original      the loop of the 2020 notebook: fastai's own Adam, LMDataLoader, float32 logits of the
                  whole batch, and on a GPU always fp16

A case is a list of words: `fp32`, `fp16` or `bf16`, `batch=N`, `passes=N` (forward passes per optimizer
step), `dropout=X`, `compile`. `config=FILE` takes all of these from a config. `ours` then follows every
setting of that config; the other programs train with AdamW.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

PROGRAMS = ("ours", "bare", "trainer best", "trainer", "original")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WARM_UP = 2  # the first step allocates the optimizer's state
COSTLIEST = 10


@dataclass(frozen=True)
class Shape:
    """The size of a GPT-2."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocab: int = 50257
    block: int = 1024

    def flops(self, tokens: int) -> float:
        """The FLOPs of a training step."""
        # only now: other programs are timed without us
        from gportuguese.plan.flops import gpt2_flops

        return tokens * gpt2_flops(self.layers, self.width, self.vocab, self.block)


@dataclass(frozen=True)
class Case:
    """The settings of a measurement."""

    name: str
    precision: str = "bf16"
    batch: int = 2
    passes: int = 1
    dropout: float = 0.1
    compile: bool = False
    config: str | None = None


def main() -> None:
    """Prints a table per case, or runs one of the programs (--program)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", default="bf16", choices=DTYPES)
    parser.add_argument("--compile", action="store_true", help="torch.compile where a program can")
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout of all programs")
    parser.add_argument("--case", action="append", help="replaces the options above (see top)")
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--shape", help="LAYERS,WIDTH,HEADS,VOCABULARY (default: GPT-2 small)")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--programs", nargs="+", default=PROGRAMS, choices=PROGRAMS)
    parser.add_argument("--profile", action="store_true", help="the costliest operations of `ours`")
    parser.add_argument("--json", type=Path, help="append each case as a line of JSON")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = Shape(block=args.block)
    if args.shape:
        shape = Shape(*map(int, args.shape.split(",")), args.block)
    if args.program:
        run_program(args.program, shape, args)
        return
    cases = [read_case(text) for text in args.case or ()] or [
        Case("", args.precision, args.batch, dropout=args.dropout, compile=args.compile)
    ]
    children = {name: start(name) for name in args.programs}
    for child in children.values():
        if child.stdout.readline() != "ready\n":
            raise SystemExit("a program did not start")
    for case in cases:
        result = measure(case, shape, children, args)
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        print_table(result)
    for child in children.values():
        child.communicate()


def read_case(text: str) -> Case:
    """The case described by a list of words."""
    case = Case(text)
    for word in text.split(","):
        key, _, value = word.partition("=")
        if key in DTYPES:
            case = replace(case, precision=key)
        elif key == "compile":
            case = replace(case, compile=True)
        elif key in ("batch", "passes"):
            case = replace(case, **{key: int(value)})
        elif key == "dropout":
            case = replace(case, dropout=float(value))
        elif key == "config":
            case = case_of_config(text, value)
        else:
            raise SystemExit(f"--case {text}: {word!r} is not known; see --help")
    return case


def case_of_config(name: str, path: str) -> Case:
    """The case with the settings of a config file."""
    from gportuguese import load_config

    config = load_config(path)
    train, runtime = config.train, config.runtime
    return Case(
        name,
        train.precision,
        runtime.micro_batch_size,
        train.global_batch_size // runtime.micro_batch_size,
        0.1 if train.dropout is None else train.dropout,
        runtime.compile,
        path,
    )


def start(name: str) -> subprocess.Popen:
    """Starts the process of a program, which waits for its first case."""
    words = [sys.executable, __file__, *sys.argv[1:], "--program", name]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(case: Case, shape: Shape, children: dict[str, subprocess.Popen], args) -> dict:
    """Runs steps of every program in turn and returns a line of `--json`."""
    programs = {}
    for name, child in children.items():
        if name == "original" and case.passes > 1:
            continue  # it had no gradient accumulation
        programs[name] = ask(child, json.dumps(asdict(case)))
    alive = [name for name, answer in programs.items() if "error" not in answer]
    seconds: dict[str, list[float]] = {name: [] for name in alive}
    peaks = []
    for _ in range(args.steps + WARM_UP):
        for name in list(alive):
            answer = ask(children[name], "go")
            if "error" in answer:
                programs[name] = answer
                alive.remove(name)
            else:
                seconds[name].append(answer["seconds"])
        peaks.append(matmul_flops(args.device, case.precision))
    for name in alive:
        if name == "ours" and args.profile:
            programs[name] |= ask(children[name], "trace")
        programs[name] |= ask(children[name], "next")
        programs[name]["first_step_seconds"] = seconds[name][0]
        programs[name]["seconds"] = seconds[name][WARM_UP:]
    return {
        "case": asdict(case),
        "shape": asdict(shape),
        "programs": programs,
        "peak_flops": statistics.median(peaks),
        "device": device_name(args.device),
        "versions": versions(),
    }


def ask(child: subprocess.Popen, words: str) -> dict:
    """A program's answer, or an error if its process has ended."""
    try:
        child.stdin.write(words + "\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())
    except (OSError, ValueError):
        return {"error": f"the process ended with exit code {child.wait()}"}


def print_table(result: dict) -> None:
    """Prints one case as a Markdown table."""
    case, shape = Case(**result["case"]), Shape(**result["shape"])
    tokens = case.batch * case.passes * shape.block
    times = {name: p["seconds"] for name, p in result["programs"].items() if "seconds" in p}
    first = next(iter(times), "")
    print(f"\n| program | s/step | tokens/s | {first} is ... as fast | peak (GB) | share of peak |")
    print("| --- " * 6 + "|")
    for name, program in result["programs"].items():
        if "error" in program:
            print(f"| {name} | {program['error']} | - | - | - | - |")
            continue
        median = statistics.median(times[name])
        ratios = [other / own for own, other in zip(times[first], times[name], strict=True)]
        memory = program["memory_bytes"]
        print(
            f"| {name} | {median:.4g} | {tokens / median:.0f} | {statistics.median(ratios):.3f} | "
            f"{'-' if memory is None else f'{memory / 1e9:.2f}'} | "
            f"{shape.flops(tokens) / median / result['peak_flops']:.3f} |"
        )
    print(
        f"\n{case.name or case.precision}: {case.passes} x {case.batch} x {shape.block}, dropout "
        f"{case.dropout}, medians of {len(times.get(first, ()))} in turn; matrix product in "
        f"{case.precision} {result['peak_flops'] / 1e9:.0f} GFLOP/s; {result['device']}, "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        flush=True,
    )


def device_name(device: str) -> str:
    """The name of the GPU, or the CPU and its number of threads."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"


def versions() -> dict[str, str]:
    """The versions of torch, transformers and fastai."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "fastai")}


def matmul_flops(device: str, precision: str) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192
    if device == "cpu":
        size = 2048 if precision == "fp32" else 512  # many CPUs emulate fp16 and bf16
    left, right = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in "lr")
    best = float("inf")
    for _ in range(5):
        wait_for(device)
        begin = time.perf_counter()
        torch.mm(left, right)
        wait_for(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def wait_for(device: str) -> None:
    """Waits until the device has finished all its work."""
    if device != "cpu":
        torch.cuda.synchronize(device)


# ---- one program


class Turn:
    """Reports the time of the last step to the script and waits until it asks for the next."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.output = os.fdopen(os.dup(1), "w")
        sys.stdout = sys.stderr  # programs may print
        self.word = ""
        self.num_cases = 0

    def say(self, **answer) -> None:
        """Sends an answer to the script."""
        print(json.dumps(answer), file=self.output, flush=True)

    def begin_case(self) -> None:
        """Resets the measurements before a model is made."""
        self.word, self.num_cases = "", self.num_cases + 1
        if self.device == "cpu":
            self.held_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        else:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def __call__(self) -> bool:
        """Whether to take another step."""
        wait_for(self.device)
        if self.word == "go":
            self.say(seconds=time.perf_counter() - self.begin)
        elif self.word == "trace":
            self.profile.stop()
            self.say(costliest=costliest(self.profile, self.device))
        else:
            self.say()
        self.word = sys.stdin.readline().strip()
        if self.word == "trace":
            self.profile = torch.profiler.profile()
            self.profile.start()
        self.begin = time.perf_counter()
        return self.word in ("go", "trace")

    def memory_bytes(self) -> int | None:
        """Peak memory of this case; None if an earlier case of this process may have set the peak."""
        if self.device != "cpu":
            return torch.cuda.max_memory_allocated(self.device)
        from gportuguese.world import peak_memory_bytes

        return peak_memory_bytes() - self.held_bytes if self.num_cases == 1 else None


def costliest(profile, device: str) -> list[dict]:
    """The costliest operations of a step: name, calls, milliseconds, share."""
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    rows = sorted(profile.key_averages(), key=lambda row: -getattr(row, key))
    if device != "cpu":  # kernels, not the operators that started them
        rows = [row for row in rows if row.device_type == torch.autograd.DeviceType.CUDA]
    total = sum(getattr(row, key) for row in rows) or 1
    return [
        {
            "name": row.key,
            "calls": row.count,
            "ms": getattr(row, key) / 1e3,
            "share": getattr(row, key) / total,
        }
        for row in rows[:COSTLIEST]
    ]


def run_program(name: str, shape: Shape, args) -> None:
    """Trains a model for each case that the script sends."""
    turn = Turn(args.device)
    kind = name.partition(" ")[0]
    run = {"ours": ours, "bare": bare, "trainer": trainer, "original": original}[kind]
    print("ready", file=turn.output, flush=True)
    while line := sys.stdin.readline():
        case = Case(**json.loads(line))
        steps = args.steps + WARM_UP + 2  # one to profile, one that is not taken
        size = steps * case.passes * case.batch * shape.block + 1
        ids = np.random.default_rng(0).integers(0, shape.vocab, size).astype("<u2")
        turn.begin_case()
        try:
            run(case, shape, ids, turn, args)
        except Exception as error:  # noqa: BLE001 (the other programs go on)
            turn.say(error=f"{type(error).__name__}: {str(error).splitlines()[:1]}")
            continue
        turn.say(memory_bytes=turn.memory_bytes())
        torch.compiler.reset()


def model_of(case: Case, shape: Shape):
    """A GPT-2 with random weights."""
    from gportuguese import causal_lm
    from gportuguese.config import Architecture

    architecture = Architecture(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        positions=shape.block,
        dropout=case.dropout,
    )
    torch.manual_seed(0)
    model = causal_lm.fresh_gpt2(architecture, shape.vocab)
    model.config.use_cache = False
    return model


def ours(case: Case, shape: Shape, ids, turn: Turn, args) -> None:
    """Trains in a phase of a real run."""
    from fastai.callback.core import Callback, CancelFitException

    from gportuguese import causal_lm, learner, load_config
    from gportuguese.callbacks import (
        Checkpoints,
        EpochOrder,
        EpochTable,
        LossCurve,
        Meter,
        TensorBoard,
        TrackerLog,
        TrainableGroups,
    )
    from gportuguese.epochs import EpochRow
    from gportuguese.loaders import Loaders
    from gportuguese.tokens import BlockLoader
    from gportuguese.world import init_world, keep_freed_memory

    class Wait(Callback):
        order = -100
        run_valid = False

        def before_batch(self):
            if self.learn.iter % case.passes == 0 and not turn():
                raise CancelFitException

    keep_freed_memory()
    settings = [
        f"runtime.device={args.device}",
        f"tokens.block_size={shape.block}",
        f"evaluate.tokens={shape.block}",
    ]
    if case.config is None:
        settings += [
            f"train.precision={case.precision}",
            f"train.global_batch_size={case.batch * case.passes}",
            f"runtime.micro_batch_size={case.batch}",
            f"runtime.compile={str(case.compile).lower()}",
            # as configs/h100.yaml
            f"runtime.vocab_multiple={1 if args.device == 'cpu' else 64}",
            f"runtime.loss_rows={1024 if args.device == 'cpu' else 8192}",
        ]
    config = load_config(case.config, tuple(settings))
    world = init_world(config.runtime)
    model = model_of(case, shape)
    pinned = args.device != "cpu"
    loader = BlockLoader(
        ids, shape.block, case.batch, seed=0, multiple=case.batch * case.passes, pin_memory=pinned
    )
    loaders = Loaders(loader, loader, torch.device(world.device))
    learn = learner.make_phase_learner(model, loaders, config, world)
    scratch = Path(tempfile.mkdtemp())
    bytes_V = torch.ones(shape.vocab, device=world.device)
    table = EpochTable(scratch, bytes_V, learn.step_loss, [], [], lambda *_: None, world)
    table.rows.append(EpochRow(0, "before", *[float("nan")] * 5))
    curve = LossCurve(scratch, learn.step_loss, table, len(loader) // case.passes, world)
    cbs = [
        Wait(),
        TrainableGroups(causal_lm.parameter_groups(model), 4),
        EpochOrder(0),
        table,
        curve,
        checkpoints := Checkpoints(
            scratch,
            model,
            table=table,
            curve=curve,
            guard=learn.guard,
            scaler=learn.precision.scaler,
            passes_per_step=case.passes,
            minutes=1e6,
            world=world,
        ),
        TrackerLog(TensorBoard(scratch), table, learn.step_loss, 0),
        Meter(lambda *_, **__: None, table, learn.guard),
    ]
    learner.fit_phase(learn, config.train.phases[-1], config.train, cbs)
    checkpoints.leave()


def bare(case: Case, shape: Shape, ids, turn: Turn, args) -> None:
    """The same arithmetic in plain PyTorch, without checks, logs or clipping."""
    model = model_of(case, shape).train().to(args.device)
    if case.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    kind = torch.device(args.device).type
    scaler = torch.amp.GradScaler(kind, enabled=case.precision == "fp16")
    mixed = case.precision != "fp32"
    inputs, targets = (
        torch.from_numpy(part.astype(np.int64)).view(-1, case.passes, case.batch, shape.block)
        for part in (ids[:-1], ids[1:])
    )
    for step_inputs, step_targets in zip(inputs, targets, strict=True):
        if not turn():
            return
        for inputs_BT, targets_BT in zip(step_inputs, step_targets, strict=True):
            inputs_BT, targets_BT = inputs_BT.to(args.device), targets_BT.to(args.device)
            with torch.autocast(kind, DTYPES[case.precision], enabled=mixed):
                logits_BTV = model(inputs_BT).logits
                loss = torch.nn.functional.cross_entropy(
                    logits_BTV.flatten(0, 1).float(), targets_BT.flatten()
                )
            scaler.scale(loss / case.passes).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def trainer(case: Case, shape: Shape, ids, turn: Turn, args) -> None:
    """Hugging Face's Trainer."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Wait(TrainerCallback):
        def on_step_begin(self, arguments, state, control, **_):
            if not turn():
                raise StopIteration

    model = model_of(case, shape)
    blocks = torch.from_numpy(ids[:-1].astype(np.int64)).view(-1, shape.block)
    best = {}
    if args.program.endswith("best"):
        best = {"optim": "adamw_torch_fused", "torch_compile": case.compile}
        best[case.precision] = True
        best.pop("fp32", None)
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=case.batch,
        gradient_accumulation_steps=case.passes,
        use_cpu=args.device == "cpu",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **best,
    )
    rows = [{"input_ids": block, "labels": block} for block in blocks]
    with contextlib.suppress(StopIteration):
        Trainer(model=model, args=options, train_dataset=rows, callbacks=[Wait()]).train()


def original(case: Case, shape: Shape, ids, turn: Turn, args) -> None:
    """The loop of the 2020 notebook. On a CPU it lacks fp16, which fastai has for CUDA only."""
    from fastai.text.all import (
        Callback,
        CancelFitException,
        CrossEntropyLossFlat,
        DataLoaders,
        Learner,
        LMDataLoader,
        MixedPrecision,
        Perplexity,
        TensorText,
        accuracy,
    )

    class DropOutput(Callback):
        def after_pred(self):
            self.learn.pred = self.pred[0]

    class Wait(Callback):
        order = -100
        run_valid = False

        def before_batch(self):
            if not turn():
                raise CancelFitException

    documents = [(TensorText(ids.astype(np.int64)),)]
    loaders = [
        LMDataLoader(documents, bs=case.batch, seq_len=shape.block, num_workers=0, shuffle=shuffle)
        for shuffle in (True, False)
    ]
    half = [] if args.device == "cpu" else [MixedPrecision()]
    learn = Learner(
        DataLoaders(*loaders, device=torch.device(args.device)),
        model_of(case, shape),
        loss_func=CrossEntropyLossFlat(),
        cbs=[DropOutput(), Wait(), *half],
        metrics=[accuracy, Perplexity()],
    )
    with learn.no_bar(), contextlib.redirect_stdout(sys.stderr):
        learn.fit_one_cycle(1, 1e-4)


if __name__ == "__main__":
    main()
