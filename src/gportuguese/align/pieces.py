"""`pieces`: the mean row of the pieces that the source tokenizer cuts a token's bytes into.

Fast vocabulary transfer (Gee et al., 2022), on bytes: defined for every token.
"""

from __future__ import annotations

import json

import numpy as np
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from gportuguese.align.rows import Filler, Vocabularies, mixed
from gportuguese.tokenizer import stand_ins_of


def filler(vocabularies: Vocabularies) -> Filler:
    """Mixtures of each token's source pieces in equal parts.

    It has no row only where the source lacks a byte (some have none that UTF-8 never uses).
    """
    merges = _merges_alone(vocabularies)
    rows, columns, values = [], [], []
    for row, token in enumerate(vocabularies.target_tokens):
        ids = merges.encode(stand_ins_of(token), add_special_tokens=False).ids
        if sum(len(vocabularies.source_tokens[id]) for id in ids) != len(
            token
        ):  # a byte was dropped: what is left is another token
            continue
        rows += [row] * len(ids)
        columns += ids
        values += [1 / len(ids)] * len(ids)
    entries = (np.array(values, np.float32), (rows, columns))
    return mixed("pieces", csr_array(entries, shape=vocabularies.shape))


def _merges_alone(vocabularies: Vocabularies) -> Tokenizer:
    """The source's merges: whatever is given to it is one word."""
    parts = json.loads(vocabularies.source.backend_tokenizer.to_str())
    for name in ("normalizer", "pre_tokenizer", "post_processor", "truncation", "padding"):
        parts[name] = None
    parts["added_tokens"] = []
    parts["model"]["dropout"] = None
    return Tokenizer.from_str(json.dumps(parts))
