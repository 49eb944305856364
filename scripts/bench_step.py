"""A training step through our fastai `Learner` against a bare PyTorch loop, as a ratio.

    python scripts/bench_step.py --precision bf16

Both run GPT-2 small at full size (random weights, vocabulary 50,257) on the same batch with the
same optimizer, in turn, one step each, after a warm-up; the ratio of the medians is printed with
hardware and versions. `Learner` steps include every callback of a real run; the bare loop checks,
clips and logs nothing.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import fastai
import numpy as np
import torch
import transformers
from fastai.callback.schedule import ParamScheduler, combined_cos

from gportuguese import learner, load_config
from gportuguese import model as models
from gportuguese.callbacks import EpochOrder, EpochTable, Meter, TensorBoardLog, TrainableGroups
from gportuguese.callbacks.precision import autocast
from gportuguese.config import Architecture
from gportuguese.tokens import BlockLoader
from gportuguese.world import World, init_world, keep_freed_memory

GPT2_SMALL = Architecture(layers=12, width=768, heads=12, positions=1024)


def main() -> None:
    """Prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    config = load_config(
        None,
        (
            f"train.precision={args.precision}",
            f"train.global_batch_size={args.batch}",
            f"runtime.micro_batch_size={args.batch}",
            f"tokens.block_size={args.block}",
            f"evaluate.tokens={args.block}",
            "train.tensorboard=false",
        ),
    )
    world = init_world(config.runtime)
    model = models.fresh_gpt2(GPT2_SMALL, 50257).to(world.device)
    model.config.use_cache = False
    sizes = [models.count_parameters(group) for group in models.parameter_groups(model)]
    print("trainable per phase:", *(f"{sum(sizes[-n:]):,}" for n in (1, 2, 3, 4)))
    ids = np.random.default_rng(0).integers(0, 50257, args.batch * args.block + 1).astype("<u2")
    loader = BlockLoader(ids, args.block, args.batch, seed=0)
    ours, bare = learner_step(model, loader, config, world), bare_step(model, loader, config, world)
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for step in range(args.steps + 1):
        for name, run in (("ours", ours), ("bare", bare)):
            start = time.perf_counter()
            run()
            if world.device != "cpu":
                torch.cuda.synchronize()
            if step:  # the first is the warm-up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    tokens = args.batch * args.block
    print(
        f"ours {medians['ours']:.3f} s, bare {medians['bare']:.3f} s, "
        f"ratio {medians['ours'] / medians['bare']:.3f}; {tokens / medians['ours']:.0f} tokens/s; "
        f"{args.precision}, {args.batch} x {args.block}, median of {args.steps}, {world.device}, "
        f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, fastai {fastai.__version__}"
    )


def learner_step(model, loader, config, world: World):
    """A function that runs one step through the `Learner`, as `fit_one_cycle` does."""
    loaders = learner.Loaders(loader, loader, torch.device(world.device))
    learn = learner.make_learner(model, loaders, config, world)
    groups = models.parameter_groups(model)
    bytes_per_token = torch.ones(50257, device=world.device)
    rates = np.array(learner.learning_rates(config.train.phases[-1]))
    schedule = {
        "lr": combined_cos(0.25, rates / 25, rates, rates / 1e5),
        "mom": combined_cos(0.25, *config.train.momentums),
    }
    scratch = Path(tempfile.mkdtemp())
    table = EpochTable(scratch, bytes_per_token, [], [], on_row=lambda *_: None)
    learn.add_cbs(
        [
            TrainableGroups(groups, 4),
            EpochOrder(0),
            ParamScheduler(schedule),
            table,
            TensorBoardLog(scratch, 0),
            Meter(lambda amount, note: None),
        ]
    )
    learn.n_epoch, learn.dl = 1, loader
    learn("before_fit")
    learn("before_epoch")
    learn("before_train")
    return learn.all_batches


def bare_step(model, loader, config, world: World):
    """A function that runs the same step in plain PyTorch."""
    optimizer = learner.make_optimizer(model, config.train)
    groups = zip(
        optimizer.param_groups, learner.learning_rates(config.train.phases[-1]), strict=True
    )
    for group, rate in groups:
        group["lr"] = rate
    scaler = torch.amp.GradScaler(
        torch.device(world.device).type, enabled=config.train.precision == "fp16"
    )

    def run() -> None:
        model.train()
        for inputs_BT, targets_BT in loader:
            inputs_BT, targets_BT = inputs_BT.to(world.device), targets_BT.to(world.device)
            with autocast(world.device, config.train.precision):
                logits_BTV = model(inputs_BT).logits
                loss = torch.nn.functional.cross_entropy(
                    logits_BTV.flatten(0, 1).float(), targets_BT.flatten()
                )
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    return run


if __name__ == "__main__":
    main()
