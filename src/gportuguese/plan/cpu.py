"""The speed of this machine's CPU, measured on a model of the config's width with few blocks."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gportuguese import causal_lm
from gportuguese.config import Config
from gportuguese.loss import HeadLoss, loss_input
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.schedule import Step
from gportuguese.plan.shape import make_model
from gportuguese.precision import DTYPES, autocast, product_flops
from gportuguese.world import World, keep_freed_memory

_PRODUCT = 512  # rows and columns of the matrix product that is timed
_BLOCKS = 3
_VOCABULARY = 16_384  # rows of the head that is timed
_ROWS = (256, 1024)  # tokens of a pass that is timed
_PASS_SECONDS = 0.7  # that it should take by the rate of the product
_REPEATS = 5
_SECONDS = 1.0  # after which a repetition is the last
_LONGEST_PASS = 5.0  # seconds that a pass may take by the rate of the product


@dataclass(frozen=True)
class CpuSpeed:
    """Measured seconds of the parts of a step."""

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


def cpu_step_seconds(cpu: CpuSpeed, step: Step, shape: Any) -> float:
    """Seconds of one optimizer step of one process on this machine's CPU."""
    num_blocks = int(shape.num_hidden_layers)
    runs = np.array_split(np.arange(num_blocks), causal_lm.NUM_GROUPS - 1)
    trained = sum(len(run) for run in runs[causal_lm.NUM_GROUPS - step.trainable_groups :])
    frozen = num_blocks - trained
    tokens = step.passes * step.micro_batch_size * step.block_size
    per_token = cpu.rest_seconds + trained * cpu.block_seconds + frozen * cpu.frozen_seconds
    return tokens * per_token + cpu.rest_update_seconds + trained * cpu.block_update_seconds


def measure_cpu(config: Config, shape: Any, step: Step) -> CpuSpeed | None:
    """Times passes and updates of a model with few blocks, few tokens and a small vocabulary.

    Two depths give the cost of a block and of the rest, and from these follows a model of any depth. The
    cost of the head grows with the vocabulary. Takes seconds. Returns None if a pass would take too long,
    such as in fp16, or with Muon (which computes in bf16), on a CPU without them.
    """
    keep_freed_memory()
    rate = product_flops(DTYPES[step.precision], _PRODUCT)
    small = copy.copy(shape)
    small.vocab_size = min(shape.vocab_size, _VOCABULARY)
    small.num_hidden_layers = _BLOCKS
    weights = small.vocab_size * shape.hidden_size + _BLOCKS * 12 * shape.hidden_size**2
    rows = int(min(max(_PASS_SECONDS * rate / (6 * weights), _ROWS[0]), _ROWS[1]))
    length = min(step.block_size, rows)
    size = min(step.micro_batch_size, max(1, rows // length))
    tokens = size * length
    if 6 * weights * tokens / rate > _LONGEST_PASS:
        return None
    if config.train.optimizer == "muon":  # about 280 D^3 for a block of GPT-2
        update = 280 * shape.hidden_size**3
        if update / product_flops(torch.bfloat16) > _LONGEST_PASS:
            return None
    timed = _Timed(config, small, step, (size, length))
    body, head, block_update, rest_update = _median_seconds(
        timed.body, timed.head, lambda: timed.update(0), lambda: timed.update(1)
    )
    timed.blocks.requires_grad_(False)
    (frozen_body,) = _median_seconds(timed.body)
    timed.blocks.requires_grad_(True)
    del timed.blocks[1:]
    (short_body,) = _median_seconds(timed.body)
    scale = shape.vocab_size / small.vocab_size
    block = max(body - short_body, 0) / (_BLOCKS - 1)
    return CpuSpeed(
        product_flops=rate,
        threads=torch.get_num_threads(),
        rest_seconds=(max(short_body - block, 0) + scale * head) / tokens,
        block_seconds=block / tokens,
        frozen_seconds=max(block - (body - frozen_body) / _BLOCKS, 0) / tokens,
        rest_update_seconds=scale * rest_update,
        block_update_seconds=block_update,
    )


class _Timed:
    """A model cut to few blocks whose parts can be timed one by one."""

    def __init__(self, config: Config, shape: Any, step: Step, shape_BT: tuple[int, int]) -> None:
        self.precision = step.precision
        self.model = make_model(shape).train()
        self.blocks = causal_lm.block_list(self.model)
        causal_lm.prepare_model(self.model, config, World("cpu", 1))
        self.loss = HeadLoss(
            self.model, chunk_rows=step.loss_rows, vocab_multiple=step.vocab_multiple
        )
        self.ids_BT = torch.randint(shape.vocab_size, shape_BT)
        self.hidden_BTD = torch.randn(*shape_BT, shape.hidden_size, requires_grad=True)
        rest = causal_lm.parameter_groups(self.model).outside_blocks
        self.groups: list[list[torch.nn.Parameter]] = [[*self.blocks[0].parameters()], rest]
        self.optimizers = [
            make_optimizer(self.model, groups, config.train)
            for groups in (
                causal_lm.ParameterGroups(self.groups[0], [], [], []),
                causal_lm.ParameterGroups([], [], [], rest),
            )
        ]

    def body(self) -> None:
        """A pass of everything before the head; clears gradients first."""
        self.model.zero_grad()
        with autocast("cpu", self.precision):
            out = loss_input(self.model(self.ids_BT))
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]

    def head(self) -> None:
        """A pass of head and loss."""
        with autocast("cpu", self.precision):
            mean = self.loss(self.hidden_BTD, self.ids_BT)
        mean.backward()  # type: ignore[no-untyped-call]

    def update(self, index: int) -> None:
        """Clipping and the optimizer's step of one block (0) or of all outside the blocks (1)."""
        gradients = [p.grad for p in self.groups[index] if p.grad is not None]
        torch.nn.utils.get_total_norm(gradients)
        self.optimizers[index].step()


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
