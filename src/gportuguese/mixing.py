"""Mixes the training documents of several sources, so that each has its share of the tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gportuguese import corpus
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, sources_of

log = logging.getLogger("gportuguese")

_SOURCE = "source"  # stem of the files that hold the source at hand


@dataclass(frozen=True)
class Draw:
    """How often each document of a source is read in a pass over the training text."""

    whole: int
    """How often all documents are read."""
    more: np.ndarray
    """The documents that are read once more, in their order; int64."""

    def places(self, num_documents: int) -> np.ndarray:
        """The documents in the order in which the pass holds them, int64.

        >>> Draw(2, np.array([1])).places(3).tolist()
        [0, 1, 2, 0, 1, 2, 1]
        """
        return np.concatenate([*[np.arange(num_documents)] * self.whole, self.more])


def draw_documents(lengths: np.ndarray, num_tokens: float, seed: Sequence[int]) -> Draw:
    """Draws documents whose `lengths` add up to `num_tokens`, to within half the longest document.

    All are read equally often, except that some, drawn at random, are read once more.

    >>> found = draw_documents(np.array([10, 20, 10]), 90, seed=[0])
    >>> found.whole, len(found.more)
    (2, 1)
    """
    whole, rest = divmod(num_tokens, int(lengths.sum()))
    order = np.random.default_rng(seed).permutation(len(lengths))
    sums = np.cumsum(np.concatenate([[0], lengths[order]]))
    return Draw(int(whole), np.sort(order[: np.abs(sums - rest).argmin()]))


def write_mix(
    config: Config,
    artifact: Artifact,
    target: list[str],
    out: Path,
    dtype: np.dtype[Any],
    encode: Callable[[str, str], int],
) -> list[dict[str, Any]]:
    """Writes `train.bin`: one pass over the training text of several sources. Returns its parts in order.

    The first source is read once, and the others as often as their weights ask. Without weights, all are
    read once. The sources `target` come before others. `train.rows.bin` (int64) holds the place
    of each document in the corpus's training split.

    `encode(source, stem)` writes the tokens of a source to `<stem>.bin`, where its documents start to
    `<stem>.offsets.bin`, and returns the number of tokens. It is not called for sources of weight 0.
    """
    first, *_ = sources = sources_of(config.corpus)
    parts: list[dict[str, Any]] = []
    position = 0
    with ExitStack() as stack:
        ids_file, offsets_file, rows_file = (
            stack.enter_context((out / f"train{kind}.bin").open("wb"))
            for kind in ("", ".offsets", ".rows")
        )
        for source in sorted(sources, key=lambda source: source.name not in target):
            name = str(source.name)
            if source.weight == 0:  # only measured
                parts.append({
                    "name": name, "weight": source.weight, "documents": 0, "tokens": 0, "repeats": 0.0
                })  # fmt: skip
                continue
            num_tokens = encode(name, _SOURCE)
            wanted: float = num_tokens
            if parts and source.weight is not None:  # then the first source has one too
                wanted = parts[0]["tokens"] * source.weight / (first.weight or 1)
            starts = np.fromfile(out / f"{_SOURCE}.offsets.bin", "<i8")
            draw = draw_documents(np.diff(starts), wanted, (config.tokens.seed, *name.encode()))
            _copy(np.memmap(out / f"{_SOURCE}.bin", dtype, mode="r"), starts, draw, ids_file)
            places = draw.places(len(starts) - 1)
            lengths = np.diff(starts)[places]
            (position + np.cumsum(lengths) - lengths).astype("<i8").tofile(offsets_file)
            corpus.rows_of(artifact, "train", name)[places].astype("<i8").tofile(rows_file)
            num_read = int(lengths.sum())
            parts.append({
                "name": name,
                "weight": source.weight,
                "documents": len(places),
                "tokens": num_read,
                "repeats": num_read / num_tokens,
            })  # fmt: skip
            position += num_read
        np.array([position], "<i8").tofile(offsets_file)
    for kind in ("", ".offsets"):
        (out / f"{_SOURCE}{kind}.bin").unlink()
    for part in parts:
        part["share"] = part["tokens"] / position
        _report(part, config.tokens.max_repeats)
    return parts


def _copy(ids: np.ndarray, starts: np.ndarray, draw: Draw, file: IO[bytes]) -> None:
    for _ in range(draw.whole):
        ids.tofile(file)
    for place in draw.more:
        ids[starts[place] : starts[place + 1]].tofile(file)


def _report(part: dict[str, Any], max_repeats: float) -> None:
    name, repeats = part["name"], part["repeats"]
    weight = "" if part["weight"] is None else f" (weight {part['weight']:g})"
    log.info(
        f"{name}: {100 * part['share']:.2f} % of the tokens{weight}, {part['documents']:,} "
        f"documents{' with repeats' if repeats > 1 else ''}, read {repeats:.2f} times"
    )
    if repeats > max_repeats:
        log.warning(
            f"{name} is read {repeats:.1f} times in a pass over the training text "
            f"(tokens.max_repeats={max_repeats:g}); bring more of its text, or lower its weight"
        )
