"""The tokens stage: documents as one memory-mapped file of token ids, and a loader of its blocks.

Shapes: B sequences, T tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from gportuguese import corpus, tokenizer
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, UserError, sources_of
from gportuguese.corpus import Split
from gportuguese.mixing import write_mix
from gportuguese.packing import Packing
from gportuguese.progress import track
from gportuguese.world import World


class TokensError(UserError):
    """Documents cannot be joined, or have too few tokens for one batch."""


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes the token ids of each split, the offsets of its documents, and the bytes of each token.

    `<split>.bin` holds the ids, with `<|endoftext|>` after every document. `<split>.offsets.bin`
    (int64) holds the index of each document's first id, then the total. `token_bytes.npy` holds the
    UTF-8 bytes per id, 0 for specials. Tokenizes on all cores and holds one batch in memory.

    Of several sources, the held-out sets are those of the first, and `mixing` writes the training set.
    """
    bpe = tokenizer.load(inputs["tokenizer"].folder)
    token_bytes = bytes_per_token(bpe)
    np.save(out / "token_bytes.npy", token_bytes)
    dtype = np.dtype("<u2" if len(bpe) <= 2**16 else "<u4")
    stored, target = inputs["corpus"], corpus.target_sources(inputs["corpus"])
    facts: dict[str, Any] = {"dtype": dtype.str, "end_of_text": bpe.eos_token_id, "tokens": {}}
    with track("tokens", _num_documents(config, stored)) as advance:

        def encode(split: Split, source: str | None, stem: str) -> int:
            position = 0
            with (
                (out / f"{stem}.bin").open("wb") as ids_file,
                (out / f"{stem}.offsets.bin").open("wb") as offsets_file,
            ):
                batches = corpus.load(stored, split, source=source)
                for ids, lengths in encoded(bpe, batches, dtype):
                    (position + np.cumsum(lengths) - lengths).astype("<i8").tofile(offsets_file)
                    ids.tofile(ids_file)
                    position += len(ids)
                    advance(len(lengths), f"{position / 1e6:,.1f} M tokens")
                np.array([position], "<i8").tofile(offsets_file)
            return position

        first = None if target is None else target[0]
        for split in corpus.SPLITS:
            if split == "train" and target is not None:
                facts["sources"] = write_mix(
                    config, stored, target, out, dtype, partial(encode, "train")
                )
            else:
                encode(split, first, split)
            ids = load_ids(out, split, dtype.str)
            facts["tokens"][split] = len(ids)
            facts.setdefault("bytes", {})[split] = _count_bytes(ids, token_bytes)
    if target is not None:
        ids, start = load_ids(out, "train", dtype.str), 0
        for part in facts["sources"]:
            part["bytes"] = _count_bytes(ids[start : start + part["tokens"]], token_bytes)
            start += part["tokens"]
        facts["target_tokens"] = sum(p["tokens"] for p in facts["sources"] if p["name"] in target)
    return facts


def _num_documents(config: Config, stored: Artifact) -> int:
    """The documents that `build` encodes: of several sources, held-out ones only of the first."""
    counts = [each["documents"] for each in stored.facts.get("sources", ())]
    if len(counts) < 2:
        return sum(stored.facts["documents"].values())
    read = zip(sources_of(config.corpus)[1:], counts[1:], strict=True)
    others = sum(count["train"] for source, count in read if source.weight != 0)
    return int(sum(counts[0].values()) + others)


def _count_bytes(ids: np.ndarray, token_bytes: np.ndarray) -> int:
    """The UTF-8 bytes of a text, read a part at a time."""
    return int(sum(token_bytes[ids[i : i + 2**20]].sum() for i in range(0, len(ids), 2**20)))


def bytes_per_token(bpe: Any) -> np.ndarray:
    """UTF-8 bytes that each token id stands for, int32 `[V]`; 0 for special tokens."""
    lengths = np.array([len(token) for token in tokenizer.bytes_of_tokens(bpe)], np.int32)
    lengths[bpe.all_special_ids] = 0
    return lengths


def encoded(
    bpe: Any, batches: Iterable[Iterable[str]], dtype: np.dtype[Any] | str = "<i4"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the ids and lengths (int64) of some documents at a time, each with its end-of-text token.

    Raises `TokensError` if the tokenizer has no such token.
    """
    if bpe.eos_token_id is None:
        raise TokensError(
            "the tokenizer has no end-of-text token to put after each document; set its eos_token"
        )
    backend = tokenizer.plain_backend(bpe)
    for texts in chain.from_iterable(map(tokenizer.portions, batches)):
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        rows = [np.array([*e.ids, bpe.eos_token_id], dtype) for e in encodings]
        yield np.concatenate(rows), np.array([len(row) for row in rows], np.int64)


def joined_ids(bpe: Any, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (int32) and offsets (int64) of documents as the stage joins them, in memory.

    >>> ids, offsets = joined_ids(tokenizer, ["A", "B"])
    >>> ids.tolist(), offsets.tolist()
    ([32, 4095, 33, 4095], [0, 2, 4])

    Raises `TokensError` if the tokenizer has no end-of-text token.
    """
    parts = [(np.empty(0, np.int32), np.zeros(1, np.int64)), *encoded(bpe, [texts])]
    ids, lengths = map(np.concatenate, zip(*parts, strict=True))
    return ids, np.cumsum(lengths)


def load_ids(folder: Path, split: Split, dtype: str) -> np.ndarray:
    """The token ids of a split, memory-mapped."""
    path = folder / f"{split}.bin"
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def load_offsets(folder: Path, split: Split) -> np.ndarray:
    """The index of each document's first id in a split, then the number of ids; int64 `[D + 1]`."""
    return np.fromfile(folder / f"{split}.offsets.bin", "<i8")


def load_token_bytes(folder: Path, device: str) -> torch.Tensor:
    """UTF-8 bytes of each token id on the device, `[V]`; 0 for specials."""
    return torch.from_numpy(np.load(folder / "token_bytes.npy")).to(device)


def documents_of(folder: Path, split: Split, positions: np.ndarray) -> list[int]:
    """The documents that hold some ids of a split, as places in the corpus's split."""
    offsets = load_offsets(folder, split)
    ids = np.unique(positions % offsets[-1])  # -1 is the last id
    places = np.unique(np.searchsorted(offsets, ids, side="right") - 1)
    rows = folder / f"{split}.rows.bin"
    if rows.exists():  # several sources: documents may be left out or repeated
        places = np.unique(np.memmap(rows, "<i8", mode="r")[places])
    return places.tolist()  # type: ignore[no-any-return]


@dataclass
class BlockLoader:
    """Batches `(inputs_BT, targets_BT)` of int64 from the ids of one split.

    Block i holds the ids from `i*T` to `i*T + T`: T inputs, and T targets shifted by one. With a
    `packing`, it holds whole documents where possible. Each epoch
    takes the next `num_blocks` from an endless sequence of shuffled passes over the file; they
    depend only on `(seed, epoch)`. Without a seed, blocks come in file order.
    """

    ids: np.ndarray
    block_size: int
    batch_size: int
    seed: int | None = None
    num_blocks: int | None = None
    """Blocks per epoch; None means all. Without a seed they are spread evenly over the file."""
    multiple: int = 1
    """An epoch is cut to a multiple of this many blocks."""
    part_tokens: tuple[int, ...] = ()
    """Tokens of each part of the file. With a seed, an epoch has each part's share of the blocks."""
    rank: int = 0
    num_ranks: int = 1
    """This loader yields one of every `num_ranks` batches, the one at index `rank`."""
    pin_memory: bool = False
    packing: Packing | None = None
    n_inp: ClassVar[int] = 1
    """fastai: how many parts of a batch are inputs."""
    epoch: int = field(default=0, init=False)
    first_batch: int = field(default=0, init=False)
    """The batch at which iteration starts; set it to resume an epoch."""

    def __post_init__(self) -> None:
        self.total_blocks = (len(self.ids) - 1) // self.block_size
        wanted = self.total_blocks if self.num_blocks is None else self.num_blocks
        if self.seed is None:
            wanted = min(wanted, self.total_blocks)
        self.epoch_blocks = wanted // self.multiple * self.multiple
        if self.total_blocks < 1 or self.epoch_blocks < 1:
            raise TokensError(
                f"{len(self.ids)} tokens do not fill one batch of {self.multiple} blocks of "
                f"{self.block_size}; bring more text, lower the batch or block size, or (for a "
                "held-out set) raise its share of the corpus"
            )

    def __len__(self) -> int:
        num_batches = -(-self.epoch_blocks // self.batch_size)
        return -(-(num_batches - self.rank) // self.num_ranks)

    @property
    def bs(self) -> int:
        """fastai's name of the batch size."""
        return self.batch_size

    def one_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next batch, without taking it from the epoch."""
        return self._read(self.block_indices(self.epoch), self.first_batch)

    def new(self, **_: object) -> BlockLoader:
        """The same blocks in file order, as fastai's `get_preds` asks for them."""
        return replace(self, seed=None)

    def block_indices(self, epoch: int) -> np.ndarray:
        """The blocks of an epoch in order, int64 `[epoch_blocks]`."""
        if self.seed is None:
            return np.linspace(0, self.total_blocks - 1, self.epoch_blocks).astype(np.int64)
        first = epoch * self.epoch_blocks
        first_pass, skip = divmod(first, self.total_blocks)
        num_passes = -(-(skip + self.epoch_blocks) // self.total_blocks)
        order = np.concatenate(
            [self._shuffled(number) for number in range(first_pass, first_pass + num_passes)]
        )
        return order[skip : skip + self.epoch_blocks]

    def _shuffled(self, number: int) -> np.ndarray:
        """All blocks in the order of a pass: of several parts, each is spread evenly over the pass."""
        rng = np.random.default_rng((self.seed or 0, number))
        order = rng.permutation(self.total_blocks)
        if len(self.part_tokens) < 2:
            return order
        firsts = order * self.block_size
        if self.packing is not None:  # the first piece stands for the block
            firsts = self.packing.starts_P[self.packing.firsts_N1[order]]
        parts = np.searchsorted(np.cumsum(self.part_tokens), firsts, side="right")
        when = np.empty(len(order))
        for part in range(len(self.part_tokens)):
            is_of_part = parts == part
            count = is_of_part.sum()
            when[is_of_part] = (np.arange(count) + rng.random(count)) / max(count, 1)
        return order[np.argsort(when)]

    def step_blocks(self, epoch: int, step: int) -> np.ndarray:
        """The blocks of one optimizer step, of all ranks together."""
        return self.block_indices(epoch)[step * self.multiple : (step + 1) * self.multiple]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = self.block_indices(self.epoch)
        numbers = range(self.first_batch, len(self))
        # reads one batch ahead, so that the training loop does not wait for disk and pinning
        with ThreadPoolExecutor(1, "loader") as reader:
            ahead = [reader.submit(self._read, order, number) for number in numbers[:1]]
            for number in numbers:
                batch = ahead.pop().result()
                if number + 1 < len(self):
                    ahead.append(reader.submit(self._read, order, number + 1))
                yield batch

    def documents(self, offsets: np.ndarray) -> Iterator[np.ndarray]:
        """For each batch of this epoch, the document of every target, int64 `[B, T]`.

        `offsets` holds the index of each document's first id, then the number of ids.
        """
        order = self.block_indices(self.epoch)
        for number in range(self.first_batch, len(self)):
            targets_BT = self._positions(order, number)[:, 1:]
            yield np.searchsorted(offsets, targets_BT, side="right") - 1

    def positions(self, blocks: np.ndarray) -> np.ndarray:
        """The places in the file of the ids of some blocks, int64 `[B, T + 1]`; -1 is the last one."""
        if self.packing is not None:
            return self.packing.positions(blocks)
        return blocks[:, None] * self.block_size + np.arange(self.block_size + 1)

    def _positions(self, order: np.ndarray, number: int) -> np.ndarray:
        """The places of a batch's ids in the file, int64 `[B, T + 1]`."""
        start = (number * self.num_ranks + self.rank) * self.batch_size
        return self.positions(order[start : start + self.batch_size])

    def _read(self, order: np.ndarray, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids_BT1 = torch.from_numpy(self.ids[self._positions(order, number)].astype(np.int64))
        inputs_BT, targets_BT = ids_BT1[:, :-1].contiguous(), ids_BT1[:, 1:].contiguous()
        if self.pin_memory:
            return inputs_BT.pin_memory(), targets_BT.pin_memory()
        return inputs_BT, targets_BT
