"""What this machine's CPU can do, measured now on a cut-down model of the config's own width."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gportuguese import causal_lm
from gportuguese.config import Config
from gportuguese.loss import HeadLoss, loss_input
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.counting import Step
from gportuguese.plan.shape import cut_model
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
    """Times passes and updates of the model cut to few blocks and few tokens; takes seconds.

    Two depths give the cost of a block and of the rest, so a model of any depth follows; so it is
    with the head, whose cost grows with the vocabulary. None where that would take minutes, such as
    in fp16, or with Muon in bf16, on a CPU that has none.
    """
    keep_freed_memory()
    rate = product_flops(DTYPES[step.precision], _PRODUCT)
    small = copy.copy(shape)
    small.vocab_size = min(shape.vocab_size, _VOCABULARY)
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
    body, head, block_update, rest_update = timed.seconds(
        timed.body, timed.head, timed.update_block, timed.update_rest
    )
    with torch.no_grad():
        forward, forward_head = timed.seconds(timed.body, timed.head, is_training=False)
    timed.blocks.requires_grad_(False)
    (frozen_body,) = timed.seconds(timed.body)
    timed.blocks.requires_grad_(True)
    del timed.blocks[1:]
    (short_body,) = timed.seconds(timed.body)
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
        forward_share=(forward + scale * forward_head) / (body + scale * head),
    )


class _Timed:
    """A cut-down model whose parts can be timed one by one."""

    def __init__(self, config: Config, shape: Any, step: Step, shape_BT: tuple[int, int]) -> None:
        self.precision = step.precision
        self.model, self.blocks = cut_model(shape, _BLOCKS)
        with torch.no_grad():
            for tensor in itertools.chain(self.model.parameters(), self.model.buffers()):
                if tensor.is_floating_point():
                    tensor.normal_(std=0.02)
        runtime = dataclasses.replace(config.runtime, activation_checkpointing=False)
        causal_lm.prepare_model(
            self.model, dataclasses.replace(config, runtime=runtime), World("cpu", 1)
        )
        if step.activation_checkpointing:  # of these blocks, which are fewer than a model has
            causal_lm.checkpoint_activations(self.blocks)
        self.loss = HeadLoss(
            self.model, chunk_rows=step.loss_rows, vocab_multiple=step.vocab_multiple
        )
        self.ids_BT = torch.randint(shape.vocab_size, shape_BT)
        self.hidden_BTD = torch.randn(*shape_BT, shape.hidden_size, requires_grad=True)
        in_blocks = {id(p) for p in self.blocks.parameters()}
        rest = [p for p in self.model.parameters() if id(p) not in in_blocks]
        groups: tuple[list[torch.nn.Parameter], ...] = (list(self.blocks[0].parameters()), rest)
        self.groups = groups
        self.optimizers = (
            make_optimizer(
                self.model, causal_lm.ParameterGroups(groups[0], [], [], []), config.train
            ),
            make_optimizer(
                self.model, causal_lm.ParameterGroups([], [], [], groups[1]), config.train
            ),
        )

    def body(self) -> None:
        """A pass of everything before the head, or with a plain loss instead of one."""
        with autocast("cpu", self.precision):
            out = loss_input(self.model(self.ids_BT))
        if out.requires_grad:
            out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]

    def head(self) -> None:
        """A pass of head and loss."""
        with autocast("cpu", self.precision):
            mean = self.loss(self.hidden_BTD, self.ids_BT)
        if mean.requires_grad:
            mean.backward()  # type: ignore[no-untyped-call]

    def update_block(self) -> None:
        """Clipping and the optimizer's step, of one block."""
        self._update(0)

    def update_rest(self) -> None:
        """The same of all outside the blocks; clears every gradient."""
        self._update(1)
        self.model.zero_grad()

    def _update(self, index: int) -> None:
        gradients = [p.grad for p in self.groups[index] if p.grad is not None]
        torch.nn.utils.get_total_norm(gradients)
        self.optimizers[index].step()

    def seconds(self, *functions: Callable[[], None], is_training: bool = True) -> list[float]:
        """Median seconds of each function."""
        self.model.train(is_training)
        return _median_seconds(*functions)


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
