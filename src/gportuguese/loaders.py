"""fastai's `DataLoaders` of a run.

Shapes: B sequences, T tokens of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gportuguese.callbacks  # noqa: F401 - silences fastai's import warnings

# isort: split
import torch
from fastai.data.core import DataLoaders
from fastcore.basics import IN_NOTEBOOK

from gportuguese.artifacts import Artifact
from gportuguese.config import Config
from gportuguese.packing import Packing, pack
from gportuguese.tokens import BlockLoader, load_ids, load_offsets
from gportuguese.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Loaders(DataLoaders):
    """fastai's `DataLoaders` over the training and validation batches.

    With a tokenizer, it can show a batch as text.
    """

    n_inp = 1

    def __init__(
        self,
        train: BlockLoader,
        valid: BlockLoader,
        device: torch.device,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(train, valid)
        self._device = device  # batches stay on the host until the learner needs them
        self.tokenizer = tokenizer

    def to(self, device: torch.device | str) -> Loaders:
        """Sends batches to another device."""
        self._device = torch.device(device)
        return self

    def show_batch(self, b: Any = None, max_n: int = 4, max_tokens: int = 40, **_: object) -> None:
        """Shows the first tokens of a batch's inputs and targets as text, one row a sequence.

        `b` is fastai's name for a batch.
        """
        inputs_BT, targets_BT = b or self.one_batch()
        show_texts(
            {
                name: self._texts(ids_BT[:max_n, :max_tokens])
                for name, ids_BT in (("text", inputs_BT), ("text_", targets_BT))
            }
        )

    def _texts(self, ids_BT: torch.Tensor) -> list[str]:
        if self.tokenizer is None:
            return [" ".join(map(str, ids)) for ids in ids_BT.tolist()]
        return [self.tokenizer.decode(ids) for ids in ids_BT.tolist()]


def show_texts(columns: dict[str, list[str]]) -> None:
    """Shows a table of texts: drawn in a notebook, printed elsewhere."""
    import pandas as pd
    from fastai.torch_core import display_df

    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame(columns)
        if IN_NOTEBOOK:
            display_df(table)
        else:  # where fastai would print that there is some HTML
            print(table.to_string())  # noqa: T201


def make_loaders(
    config: Config,
    tokens: Artifact,
    world: World,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Loaders:
    """This process's share of the training and validation batches, each one micro-batch."""
    section, block_size = config.train, config.tokens.block_size

    def blocks(num_tokens: int | None) -> int | None:
        return None if num_tokens is None else num_tokens // block_size

    common: dict[str, Any] = {
        "block_size": block_size,
        "batch_size": config.runtime.micro_batch_size,
        "rank": world.rank,
        "num_ranks": world.num_ranks,
        "pin_memory": world.device != "cpu",
    }
    dtype = tokens.facts["dtype"]
    return Loaders(
        train=BlockLoader(
            load_ids(tokens.folder, "train", dtype),
            packing=_packing(config, tokens),
            seed=section.seed,
            num_blocks=blocks(section.epoch_tokens),
            multiple=section.global_batch_size,
            **common,
        ),
        valid=BlockLoader(
            load_ids(tokens.folder, "valid", dtype),
            num_blocks=blocks(section.valid_tokens),
            **common,
        ),
        device=torch.device(world.device),
        tokenizer=tokenizer,
    )


def _packing(config: Config, tokens: Artifact) -> Packing | None:
    """The blocks of the training text; validation is cut without regard to documents."""
    if config.tokens.boundaries == "none":
        return None
    return pack(load_offsets(tokens.folder, "train"), config.tokens.block_size)
