"""Blocks of whole documents (`tokens.boundaries: start`): best-fit packing of a file of token ids.

Ding et al., "Fewer Truncations Improve Language Modeling" (2024). Instead of padding the room that is left,
a few documents are cut to fill it, so every block is full.

Shapes: D documents, P pieces of documents, N blocks, B blocks of a batch, T tokens of a block.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Packing:
    """The pieces of each block. Each id of the file is in at most one piece."""

    block_size: int
    starts_P: np.ndarray
    """The index in the file of each piece's first id, in the order of the blocks."""
    lengths_P: np.ndarray
    firsts_N1: np.ndarray
    """The number of each block's first piece, then the number of pieces."""
    facts: dict[str, Any]
    """Blocks, the share of them that begin at a document's start, ids that no block holds, and how many of
    the documents that fit a block are cut."""

    def __len__(self) -> int:
        return len(self.firsts_N1) - 1

    def in_words(self) -> str:
        """The facts as text for the log."""
        facts = self.facts
        cut = "all documents are longer than a block"
        if facts["documents_that_fit"]:
            cut = (
                f"{facts['documents_cut']:,} of {facts['documents_that_fit']:,} documents that fit are "
                "cut"
            )
        return (
            f"{facts['blocks_at_document_start']:,} of {facts['blocks']:,} blocks begin at a "
            f"document's start, {cut}, {facts['unread_tokens']:,} tokens "
            f"({100 * facts['unread_share']:.2g} %) are not read"
        )

    def positions(self, blocks: np.ndarray) -> np.ndarray:
        """The places in the file of the ids of some blocks, int64 `[B, T + 1]`.

        The first is the id before the first piece: the end-of-text token of another document, or the
        text before a tail. It is only read; the others are predicted.
        """
        rows = []
        for block in blocks:
            pieces = slice(self.firsts_N1[block], self.firsts_N1[block + 1])
            starts, lengths = self.starts_P[pieces], self.lengths_P[pieces]
            before = np.cumsum(lengths) - lengths
            places_T = np.arange(self.block_size) + np.repeat(starts - before, lengths)
            rows.append(np.concatenate([places_T[:1] - 1, places_T]))
        return np.array(rows, np.int64).reshape(-1, self.block_size + 1)


def pack(offsets: np.ndarray, block_size: int) -> Packing:
    """Packs documents into as many blocks as the file fills; `offsets` is int64 `[D + 1]`.

    Documents are first cut every `block_size` ids. The pieces, longest first, go into the block with
    the least room that fits them. Then the emptiest blocks are dissolved: their pieces, cut where needed,
    fill the room in the others. The ids left over fill no block. Takes about three seconds per million
    documents.
    """
    lengths_D = np.diff(offsets)
    num_blocks = max(int(offsets[-1]) - 1, 0) // block_size
    chunks_D, tails_D = np.divmod(lengths_D, block_size)
    # whole blocks of long documents
    chunk_D = np.repeat(np.arange(len(lengths_D)), chunks_D)
    places = np.arange(len(chunk_D)) - np.repeat(np.cumsum(chunks_D) - chunks_D, chunks_D)
    chunk_starts = offsets[chunk_D] + places * block_size
    # documents that are shorter, and tails of long ones
    tails = np.argsort(-tails_D, kind="stable")[: np.count_nonzero(tails_D)]
    tail_blocks = _best_fit(tails_D[tails].tolist(), block_size) + len(chunk_starts)
    starts = np.concatenate([chunk_starts, (offsets[:-1] + chunks_D * block_size)[tails]])
    lengths = np.concatenate([np.full(len(chunk_starts), block_size), tails_D[tails]])
    blocks = np.concatenate([np.arange(len(chunk_starts)), tail_blocks])
    is_tail = ~np.isin(starts, offsets)
    # the fullest blocks, renumbered; the others are dissolved
    rooms = block_size - np.bincount(blocks, weights=lengths).astype(np.int64)
    by_room = np.argsort(rooms, kind="stable")
    numbers = np.empty(len(by_room), np.int64)
    numbers[by_room] = np.arange(len(by_room))
    blocks, rooms = numbers[blocks], rooms[by_room][:num_blocks]
    order = np.lexsort([is_tail, blocks])  # in a block, documents first
    starts, lengths, blocks = starts[order], lengths[order], blocks[order]
    is_kept = blocks < num_blocks
    filler = _fill(starts[~is_kept], lengths[~is_kept], rooms)
    starts, lengths, blocks = (
        np.concatenate([each[is_kept], more])
        for each, more in zip((starts, lengths, blocks), filler, strict=True)
    )
    order = np.argsort(blocks, kind="stable")  # the filler last
    starts, lengths = starts[order], lengths[order]
    firsts_N1 = np.searchsorted(blocks[order], np.arange(num_blocks + 1))
    unread = int(offsets[-1]) - num_blocks * block_size
    fits = lengths_D <= block_size
    documents_P = np.searchsorted(offsets, starts, side="right") - 1
    num_whole = int((lengths == lengths_D[documents_P])[fits[documents_P]].sum())
    facts = {
        "blocks": num_blocks,
        "blocks_at_document_start": int(np.isin(starts[firsts_N1[:-1]], offsets).sum()),
        "unread_tokens": unread,
        "unread_share": unread / max(int(offsets[-1]), 1),
        "documents_that_fit": int(fits.sum()),
        "documents_cut": int(fits.sum()) - num_whole,
    }
    return Packing(block_size, starts, lengths, firsts_N1, facts)


def _best_fit(lengths: list[int], block_size: int) -> np.ndarray:
    """The block of each piece, int64 `[P]`: the one with the least room that fits it, else a new one.

    Of blocks with equal room, the one that got a piece last.
    """
    blocks = np.empty(len(lengths), np.int64)
    rooms: list[int] = []  # those that some block has, in order
    blocks_by_room: dict[int, list[int]] = {}
    num_blocks = 0
    for piece, length in enumerate(lengths):
        place = bisect_left(rooms, length)
        if place == len(rooms):
            room, block = block_size, num_blocks
            num_blocks += 1
        else:
            room = rooms[place]
            block = blocks_by_room[room].pop()
            if not blocks_by_room[room]:
                del blocks_by_room[room], rooms[place]
        blocks[piece] = block
        if room > length:
            if room - length not in blocks_by_room:
                blocks_by_room[room - length] = []
                insort(rooms, room - length)
            blocks_by_room[room - length].append(block)
    return blocks


def _fill(
    starts: np.ndarray, lengths: np.ndarray, rooms_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts pieces to fill the room of blocks, in order; returns starts, lengths and blocks."""
    holes = np.flatnonzero(rooms_N)
    hole_ends, piece_ends = np.cumsum(rooms_N[holes]), np.cumsum(lengths)
    if not len(holes):
        return starts[:0], lengths[:0], holes
    ends = np.union1d(hole_ends, piece_ends[piece_ends < hole_ends[-1]])
    firsts = np.concatenate([[0], ends[:-1]])
    pieces = np.searchsorted(piece_ends, firsts, side="right")
    cut_starts = starts[pieces] + firsts - (piece_ends - lengths)[pieces]
    return cut_starts, ends - firsts, holes[np.searchsorted(hole_ends, firsts, side="right")]
