"""What this machine's CPU can do, measured now on a cut-down model of the config's own width."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gportuguese import model as models
from gportuguese.config import Config
from gportuguese.loss import HeadLoss
from gportuguese.model import prepare_model
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.counting import Step
from gportuguese.plan.shape import cut_model
from gportuguese.precision import DTYPES, autocast, product_flops
from gportuguese.world import World, keep_freed_memory

_PRODUCT = 512  # rows and columns of the matrix product that is timed
_ROWS = 1024  # tokens of a pass that is timed, where the micro-batch has more
_REPEATS = 5
_SECONDS = 2.0  # after which a repetition is the last
_LONGEST_PASS = 5.0  # seconds that a pass may take by the rate of the product


@dataclass(frozen=True)
class CpuSpeed:
    """Seconds of the parts of a step, per token of a pass or per step."""

    product_flops: float
    """FLOP/s of a square matrix product in the precision."""
    threads: int
    rest_seconds: float
    """Per token: embeddings, head and loss, forward and backward."""
    block_seconds: float
    """Per token of one block that trains."""
    frozen_seconds: float
    """Per token of one block that does not."""
    rest_update_seconds: float
    """Per optimizer step, of what is not in blocks."""
    block_update_seconds: float
    """Per optimizer step of one block that trains."""
    forward_share: float
    """Of a pass, what a forward pass without gradients takes."""

    def step_seconds(self, step: Step, num_blocks: int, trained_blocks: int) -> float:
        """Seconds of an optimizer step."""
        tokens = step.passes * step.micro_batch_size * step.block_size
        frozen = num_blocks - trained_blocks
        per_token = (
            self.rest_seconds + trained_blocks * self.block_seconds + frozen * self.frozen_seconds
        )
        update = self.rest_update_seconds + trained_blocks * self.block_update_seconds
        return tokens * per_token + update


def measure_cpu(config: Config, shape: Any, step: Step) -> CpuSpeed | None:
    """Times passes and updates of the model cut to one and to three blocks; takes seconds.

    Two depths give the cost of a block and of the rest, so a model of any depth follows. None where
    that would take minutes, such as in fp16, or with Muon in bf16, on a CPU that has none.
    """
    keep_freed_memory()
    rate = product_flops(DTYPES[step.precision], _PRODUCT)
    size = min(step.micro_batch_size, max(1, _ROWS // step.block_size))
    tokens = size * step.block_size
    weights = shape.vocab_size * shape.hidden_size + 3 * 12 * shape.hidden_size**2
    if 6 * weights * tokens / rate > _LONGEST_PASS:
        return None
    if config.train.optimizer == "muon":  # about 280 D^3 for a block of GPT-2
        update = 3 * 280 * shape.hidden_size**3
        if update / product_flops(torch.bfloat16) > _LONGEST_PASS:
            return None
    ids_BT = torch.randint(shape.vocab_size, (size, step.block_size))
    rest_pass, rest_update, _ = _time_model(config, shape, step, ids_BT, 1, frozen=False)
    full_pass, full_update, forward = _time_model(config, shape, step, ids_BT, 3, frozen=False)
    frozen_pass, _, _ = _time_model(config, shape, step, ids_BT, 3, frozen=True)
    block, update = max(full_pass - rest_pass, 0) / 2, max(full_update - rest_update, 0) / 2
    return CpuSpeed(
        product_flops=rate,
        threads=torch.get_num_threads(),
        rest_seconds=max(rest_pass - block, 0) / tokens,
        block_seconds=block / tokens,
        frozen_seconds=max(block - (full_pass - frozen_pass) / 3, 0) / tokens,
        rest_update_seconds=max(rest_update - update, 0),
        block_update_seconds=update,
        forward_share=forward / full_pass,
    )


def _time_model(
    config: Config, shape: Any, step: Step, ids_BT: torch.Tensor, num_blocks: int, frozen: bool
) -> tuple[float, float, float]:
    """Median seconds of a pass, of an update and of a forward pass without gradients."""
    model, blocks = cut_model(shape, num_blocks, frozen)
    with torch.no_grad():
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=0.02)
    runtime = dataclasses.replace(config.runtime, activation_checkpointing=False)
    prepare_model(model, dataclasses.replace(config, runtime=runtime), World("cpu", 1))
    if (
        step.activation_checkpointing
    ):  # of the blocks that are left, which are fewer than a model has
        models.checkpoint_activations(blocks)
    loss = HeadLoss(model, chunk_rows=step.loss_rows, vocab_multiple=step.vocab_multiple)
    in_blocks = {id(p) for p in blocks.parameters()}
    rest = [p for p in model.parameters() if id(p) not in in_blocks]
    optimizer = make_optimizer(model, [list(blocks.parameters()), rest], config.train)

    def one_pass() -> None:
        with autocast("cpu", step.precision):
            mean = loss(model(ids_BT).logits, ids_BT)
        mean.backward()  # type: ignore[no-untyped-call]

    def update() -> None:
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def forward() -> None:
        with autocast("cpu", step.precision):
            loss(model(ids_BT).logits, ids_BT)

    times = _median_seconds(model.train, one_pass, update)
    return times[1], times[2], _median_seconds(model.eval, forward)[1]


def _median_seconds(*functions: Callable[[], Any]) -> list[float]:
    """Of each function in a row of calls that is repeated; the first round is the warm-up."""
    rounds = list[list[float]]()
    start = time.perf_counter()
    for number in range(_REPEATS + 1):
        if number > 1 and time.perf_counter() - start > _SECONDS:
            break
        rounds.append([])
        for function in functions:
            before = time.perf_counter()
            function()
            rounds[-1].append(time.perf_counter() - before)
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
