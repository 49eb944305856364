"""Documents that say nearly the same: found by MinHash over word 5-grams, kept on one side.

Broder, "On the resemblance and containment of documents" (1997); banding as in Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", section 3.4.
"""

from __future__ import annotations

import hashlib

import numpy as np

NUM_BANDS, ROWS_PER_BAND = 16, 6
"""Two documents that share 80 % of their 5-grams meet in a band with a chance of 99 %, those that
share 50 % with 22 %, those that share 20 % with 0.1 %."""
_WORDS = 5
_SEED = 1


def fingerprint(text: str) -> str:
    """96 bits of the text itself in hex: equal texts have equal ones."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def band_keys(text: str) -> list[int]:
    """A 64-bit key per band: near-duplicates have at least one in common, others none."""
    from rensa import RMinHash

    words = text.split()
    grams = {" ".join(words[i : i + _WORDS]) for i in range(max(len(words) - _WORDS + 1, 1))}
    minhash = RMinHash(num_perm=NUM_BANDS * ROWS_PER_BAND, seed=_SEED)
    minhash.update(sorted(grams))
    rows = np.array(minhash.digest(), np.uint64).reshape(NUM_BANDS, ROWS_PER_BAND)
    return [
        int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")
        for row in rows
    ]


def clusters(keys: np.ndarray) -> np.ndarray:
    """For each document the first one of its cluster, int64 `[N]`, from keys uint64 `[N, bands]`.

    Documents that share a key in any band are in one cluster, and so are those joined by others.

    >>> clusters(np.array([[1, 5], [2, 6], [1, 7], [3, 7]], np.uint64)).tolist()
    [0, 1, 0, 0]
    """
    first = np.arange(len(keys))

    def root(document: int) -> int:
        while first[document] != document:
            first[document] = first[first[document]]
            document = int(first[document])
        return document

    for band in keys.T:
        order = np.argsort(band, kind="stable")
        same = np.flatnonzero(band[order[1:]] == band[order[:-1]])
        for left, right in zip(order[same], order[same + 1], strict=True):
            low, high = sorted((root(int(left)), root(int(right))))
            first[high] = low
    return np.array([root(document) for document in range(len(keys))], np.int64)
