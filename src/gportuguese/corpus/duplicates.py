"""Near-duplicate documents, found by MinHash over word 5-grams.

Broder, "On the resemblance and containment of documents" (1997); banding as in Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", section 3.4.
"""

from __future__ import annotations

import hashlib

import numpy as np

NUM_BANDS, ROWS_PER_BAND = 16, 6
"""Documents that share 80 % of their 5-grams match in some band with probability 99 %; with 50 % shared
it is 22 %, with 20 % shared 0.1 %."""
_WORDS = 5
_SEED = 1


def fingerprint(text: str) -> str:
    """A 96-bit hash of the text in hex."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def band_keys(text: str) -> list[int]:
    """A 64-bit key per band; near-duplicates share at least one."""
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
    """The first document of each document's cluster, int64 `[N]`, from keys uint64 `[N, bands]`.

    Documents that share a key in any band are in one cluster, directly or through others.

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
