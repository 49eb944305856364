"""A training step of GPT-2 small by several programs, in turn: seconds, and peak memory.

    python scripts/bench_step.py --batch 2 --block 1024 --steps 5

Every program runs its own real loop in a process of its own, one at a time: the script lets each
take one step, then the next, over and over after a warm-up. Printed: medians, tokens per second,
ratios, the share of the peak of a matrix product measured between the steps, and the largest
resident set of each process less what it held before it made its model
(on CUDA: the most that PyTorch allocated).

Programs: `ours`, the fastai `Learner` of a real run with all its callbacks; `bare`, plain PyTorch;
`trainer best`, Hugging Face's `Trainer` with bf16 and fused AdamW; `trainer`, at its defaults;
`original`, the loop of the 2020 notebook: fastai's own Adam, LMDataLoader, whole float32 logits.
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

PROGRAMS = ("ours", "bare", "trainer best", "trainer", "original")
VOCAB_SIZE = 50257


def main() -> None:
    """Prints the table, or (with --program) is one of the programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile for ours and bare")
    parser.add_argument("--dropout", type=float, default=0.1, help="everywhere, in all programs")
    parser.add_argument("--programs", nargs="+", default=PROGRAMS, choices=PROGRAMS)
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.program:
        run_program(args)
        return
    children = {name: start(name, args) for name in args.programs}
    seconds: dict[str, list[float]] = {name: [] for name in children}
    peaks = []
    for step in range(args.steps + 2):  # two to warm up: the optimizer's state comes with the first
        for name, child in children.items():
            child.stdin.write("go\n")
            child.stdin.flush()
            took = float(child.stdout.readline())
            if step >= 2:
                seconds[name].append(took)
        peaks.append(matmul_flops(args.device))
    memory = {}
    for name, child in children.items():
        output, _ = child.communicate("stop\n")
        memory[name] = json.loads(output.splitlines()[-1])
    report(args, seconds, memory, statistics.median(peaks))


def start(name: str, args) -> subprocess.Popen:
    """The process of a program, ready for its first step."""
    words = [sys.executable, __file__, *sys.argv[1:], "--program", name]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if child.stdout.readline() != "ready\n":
        raise SystemExit(f"{name} does not start")
    return child


def report(args, seconds, memory, peak_flops: float) -> None:
    """Prints the table."""
    tokens = args.batch * args.block
    # 6 per parameter and token, embeddings counted once as the head, and attention's two products
    flops = tokens * (6 * 124_439_808 + 12 * 12 * 768 * args.block)
    first = next(iter(seconds))
    print(f"| program | s/step | tokens/s | {first} is ... as fast | peak (GB) | share of peak |")
    print("| --- | --- | --- | --- | --- | --- |")
    ours = statistics.median(seconds[first])
    for name, values in seconds.items():
        median = statistics.median(values)
        ratios = [other / own for own, other in zip(seconds[first], values, strict=True)]
        print(
            f"| {name} | {median:.3f} | {tokens / median:.0f} | {statistics.median(ratios):.3f} | "
            f"{memory[name] / 1e9:.2f} | {flops / median / peak_flops:.3f} |"
        )
    import fastai
    import transformers

    device = (
        f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
        if args.device == "cpu"
        else torch.cuda.get_device_name(args.device)
    )
    print(
        f"\n{args.batch} x {args.block}, dropout {args.dropout}, medians of {args.steps} in turn; "
        f"matrix product in bf16 {peak_flops / 1e9:.0f} GFLOP/s, ours {flops / ours / 1e9:.0f}; "
        f"{device}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, fastai {fastai.__version__}"
    )


def matmul_flops(device: str) -> float:
    """Floating-point operations a second of a large matrix product in bf16."""
    size = 2048 if device == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(5):
        wait_for(device)
        begin = time.perf_counter()
        torch.mm(left, right)
        wait_for(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def wait_for(device: str) -> None:
    """Returns when the device has done all it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


# ---- one program


class Turn:
    """Waits for the word to take a step, and tells how long the last one took."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.speak = functools.partial(print, file=os.fdopen(os.dup(1), "w"), flush=True)
        sys.stdout = sys.stderr  # programs may print
        self.begin = None

    def __call__(self) -> None:
        """Ends the process when there is nothing more to do."""
        wait_for(self.device)
        if self.begin is None:
            self.speak("ready")
        else:
            self.speak(time.perf_counter() - self.begin)
        if sys.stdin.readline() != "go\n":
            from gportuguese.world import peak_memory_bytes

            on_cpu = self.device == "cpu"
            peak = peak_memory_bytes() if on_cpu else torch.cuda.max_memory_allocated(self.device)
            self.speak(peak - self.held_bytes * on_cpu)
            os._exit(0)
        self.begin = time.perf_counter()


def run_program(args) -> None:
    """Makes a model and trains until told to stop."""
    turn = Turn(args.device)
    kind = args.program.partition(" ")[0]
    run = {"ours": ours, "bare": bare, "trainer": trainer, "original": original}[kind]
    rows = args.batch * (args.steps + 3)
    ids = np.random.default_rng(0).integers(0, VOCAB_SIZE, rows * args.block + 1).astype("<u2")
    run(args, ids, turn)


def model_of(args, turn):
    """GPT-2 small with random weights."""
    from gportuguese import model as models
    from gportuguese.config import Architecture

    turn.held_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    shape = Architecture(layers=12, width=768, heads=12, positions=1024, dropout=args.dropout)
    torch.manual_seed(0)
    model = models.fresh_gpt2(shape, VOCAB_SIZE)
    model.config.use_cache = False
    return model


def ours(args, ids, turn) -> None:
    """A phase of a real run."""
    from fastai.callback.core import Callback

    from gportuguese import learner, load_config
    from gportuguese import model as models
    from gportuguese.callbacks import (
        Checkpoints,
        EpochOrder,
        EpochTable,
        Meter,
        TensorBoardLog,
        TrainableGroups,
    )
    from gportuguese.tokens import BlockLoader
    from gportuguese.world import init_world, keep_freed_memory

    class Wait(Callback):
        order = -100

        def before_batch(self):
            turn()

    keep_freed_memory()
    settings = (
        "train.precision=bf16",
        f"train.global_batch_size={args.batch}",
        f"runtime.micro_batch_size={args.batch}",
        f"tokens.block_size={args.block}",
        f"evaluate.tokens={args.block}",
        f"runtime.device={args.device}",
        f"runtime.compile={str(args.compile).lower()}",
        # as configs/h100.yaml
        f"runtime.vocab_multiple={1 if args.device == 'cpu' else 64}",
        f"runtime.loss_rows={1024 if args.device == 'cpu' else 8192}",
    )
    config = load_config(None, settings)
    world = init_world(config.runtime)
    model = model_of(args, turn)
    loader = BlockLoader(ids, args.block, args.batch, seed=0, multiple=args.batch)
    loaders = learner.Loaders(loader, loader, torch.device(world.device))
    learn = learner.make_learner(model, loaders, config, world)
    scratch = Path(tempfile.mkdtemp())
    bytes_V = torch.ones(VOCAB_SIZE, device=world.device)
    table = EpochTable(scratch, bytes_V, [], [], lambda *_: None, world)
    cbs = [
        Wait(),
        TrainableGroups(models.parameter_groups(model), 4),
        EpochOrder(0),
        table,
        Checkpoints(scratch, model, table, 1e6, world),
        TensorBoardLog(scratch, 0),
        Meter(lambda *_, **__: None),
    ]
    learner.fit_phase(learn, config.train.phases[-1], config.train, cbs)


def bare(args, ids, turn) -> None:
    """The same arithmetic in plain PyTorch, without checks, logs or clipping."""
    model = model_of(args, turn).train().to(args.device)
    if args.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    blocks = torch.from_numpy(ids[:-1].astype(np.int64)).view(-1, args.batch, args.block)
    targets = torch.from_numpy(ids[1:].astype(np.int64)).view(-1, args.batch, args.block)
    for inputs_BT, targets_BT in zip(blocks, targets, strict=True):
        turn()
        inputs_BT, targets_BT = inputs_BT.to(args.device), targets_BT.to(args.device)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16):
            logits_BTV = model(inputs_BT).logits
            loss = torch.nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1).float(), targets_BT.flatten()
            )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def trainer(args, ids, turn) -> None:
    """Hugging Face's Trainer."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Wait(TrainerCallback):
        def on_step_begin(self, *_, **__):
            turn()

    model = model_of(args, turn)
    blocks = torch.from_numpy(ids[:-1].astype(np.int64)).view(-1, args.block)
    best = {"bf16": True, "optim": "adamw_torch_fused"} if args.program.endswith("best") else {}
    options = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.batch,
        use_cpu=args.device == "cpu",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **best,
    )
    rows = [{"input_ids": block, "labels": block} for block in blocks]
    Trainer(model=model, args=options, train_dataset=rows, callbacks=[Wait()]).train()


def original(args, ids, turn) -> None:
    """What the notebook of 2020 did; on a CPU without its fp16, which fastai has for CUDA only."""
    from fastai.text.all import (
        Callback,
        CrossEntropyLossFlat,
        DataLoaders,
        Learner,
        LMDataLoader,
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
            turn()

    documents = [(TensorText(ids.astype(np.int64)),)]
    loaders = [
        LMDataLoader(documents, bs=args.batch, seq_len=args.block, num_workers=0, shuffle=shuffle)
        for shuffle in (True, False)
    ]
    learn = Learner(
        DataLoaders(*loaders, device=torch.device(args.device)),
        model_of(args, turn),
        loss_func=CrossEntropyLossFlat(),
        cbs=[DropOutput(), Wait()],
        metrics=[accuracy, Perplexity()],
    )
    with learn.no_bar(), contextlib.redirect_stdout(sys.stderr):
        learn.fit_one_cycle(1, 1e-4)


if __name__ == "__main__":
    main()
