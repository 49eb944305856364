"""What `gpt-pt plan` predicts for this CPU against what real training steps take; prints ratios.

    python scripts/check_plan.py

Three models: the packaged base as the demo trains it, and GPT-2 small at full size (random weights,
vocabulary 50,257) with everything trainable and with the embeddings alone. Each is trained in fresh
processes through the fastai `Learner` of a real run, the first step being the warm-up. Time is the
median step; memory is the peak resident set less that before the model was made. One more process
gives every tensor a mapping of its own, so that there are no gaps on the heap: this checks the count
of the tensors alone. Medians over the processes are compared.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

import numpy as np
import psutil
import torch
import torch.utils.flop_counter  # loads triton (80 MB), which would count as memory of the first step
import transformers
from fastai.callback.core import Callback

from gportuguese import causal_lm, learner, load_config
from gportuguese.callbacks import EpochOrder, TrainableGroups
from gportuguese.loaders import Loaders
from gportuguese.plan import (
    count_memory,
    cpu_step_seconds,
    measure_cpu,
    needed_bytes,
    read_shape,
    steps_of,
)
from gportuguese.plan.fits import FIRST_STEP_BYTES, PROGRAM_BYTES
from gportuguese.plan.shape import make_model
from gportuguese.tokens import BlockLoader
from gportuguese.world import init_world, keep_freed_memory, peak_memory_bytes

_SMALL = (
    "align={base: {layers: 12, width: 768, heads: 12, positions: 1024}, method: random}",
    "tokenizer.vocab_size=50257",
    "train.precision=bf16",
    "train.global_batch_size=1",
    "runtime.micro_batch_size=1",
    "tokens.block_size=512",
)
_PHASE = "train.phases=[{{name: one, epochs: 1, trainable_groups: {}, lr_max: 0.001}}]"
RUNS = {
    "packaged base, 8 x 256, fp32": (_PHASE.format(4),),
    "GPT-2 small, 1 x 512, bf16": (*_SMALL, _PHASE.format(4)),
    "the same, embeddings only": (*_SMALL, _PHASE.format(1)),
}


class StepTimes(Callback):
    """Seconds between the ends of steps."""

    order = 90
    run_valid = False

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_batch(self) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())


def measure(overrides: tuple[str, ...], num_steps: int, is_mapped: bool) -> None:
    """Trains `num_steps` steps and prints median seconds and bytes as JSON."""
    if not is_mapped:
        keep_freed_memory()
    config = load_config(None, overrides)
    world = init_world(config.runtime)
    section, block_size = config.train, config.tokens.block_size
    shape = read_shape(config)
    batch = section.global_batch_size
    ids = np.random.default_rng(0).integers(0, shape.vocab_size, num_steps * batch * block_size + 1)
    loaders = Loaders(
        BlockLoader(ids, block_size, config.runtime.micro_batch_size, seed=0, multiple=batch),
        BlockLoader(ids, block_size, config.runtime.micro_batch_size, num_blocks=batch),
        torch.device("cpu"),
    )
    before = psutil.Process().memory_info().rss
    model = make_model(shape)
    learn = learner.make_phase_learner(model, loaders, config, world)
    phase, times = section.phases[0], StepTimes()
    groups = causal_lm.parameter_groups(model)
    cbs = [TrainableGroups(groups, phase.trainable_groups), EpochOrder(0), times]
    learner.fit_phase(learn, phase, section, cbs)
    seconds = statistics.median(np.diff(times.ends))
    print(json.dumps({"seconds": seconds, "bytes": peak_memory_bytes() - before}))


def predict(overrides: tuple[str, ...]) -> None:
    """Prints seconds and bytes of a step by the plan as JSON."""
    config = load_config(None, overrides)
    shape, (step,) = read_shape(config), steps_of(config, "cpu")
    peak = count_memory(config, shape, step).peak_bytes
    speed = measure_cpu(config, shape, step)
    assert speed is not None
    result = {
        "seconds": cpu_step_seconds(speed, step, shape),
        "bytes": needed_bytes("cpu", peak) - PROGRAM_BYTES,
        "tensors": peak + FIRST_STEP_BYTES,
    }
    print(json.dumps(result))


def run(mode: str, name: str, args: argparse.Namespace, **environment: str) -> dict[str, float]:
    """The medians of fresh processes."""
    words = [sys.executable, __file__, "--mode", mode, "--run", name, "--steps", str(args.steps)]
    results = [
        json.loads(
            subprocess.run(
                words, check=True, capture_output=True, env={**os.environ, **environment}
            ).stdout
        )
        for _ in range(1 if mode == "mapped" else args.processes)
    ]
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def main() -> None:
    """Prints a table of predicted, measured and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--mode", choices=("predict", "measure", "mapped"), help=argparse.SUPPRESS)
    parser.add_argument("--run", choices=RUNS, help="only this one")
    args = parser.parse_args()
    if args.mode == "predict":
        predict(RUNS[args.run])
        return
    if args.mode:
        measure(RUNS[args.run], args.steps, args.mode == "mapped")
        return
    print("| step | what | planned | measured | ratio |")
    print("| --- " * 5 + "|")
    for name in [args.run] if args.run else RUNS:
        planned, measured = run("predict", name, args), run("measure", name, args)
        own = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
        measured["tensors"] = run("mapped", name, args, **own)["bytes"]
        for key, unit, scale, digits in (
            ("seconds", "s", 1, 3),
            ("bytes", "MB", 1e-6, 0),
            ("tensors", "MB, no gaps", 1e-6, 0),
        ):
            print(
                f"| {name} | {unit} | {planned[key] * scale:,.{digits}f} | "
                f"{measured[key] * scale:,.{digits}f} | {planned[key] / measured[key]:.2f} |",
                flush=True,
            )
    print(
        f"\nMedians of {args.processes} processes of {args.steps} steps; {torch.get_num_threads()} "
        f"threads, {platform.processor() or platform.machine()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


if __name__ == "__main__":
    main()
