"""`pieces`: the mean row of the pieces into which the source tokenizer splits a token's bytes.

Fast vocabulary transfer (Gee et al., 2022), applied to bytes so that it covers nearly every token.
"""

from __future__ import annotations

import json

import numpy as np
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from gportuguese.align.rows import Filler, Vocabularies, mixed
from gportuguese.tokenizer import stand_ins_of


def filler(vocabularies: Vocabularies) -> Filler:
    """Equal mixtures of each token's source pieces.

    A token gets no row if the source lacks one of its bytes; some lack those that UTF-8 never uses.
    """
    merges = _merges_alone(vocabularies)
    rows, columns, values = [], [], []
    for row, token in enumerate(vocabularies.target_tokens):
        ids = merges.encode(stand_ins_of(token), add_special_tokens=False).ids
        num_bytes = sum(len(vocabularies.source_tokens[id]) for id in ids)
        if num_bytes != len(token):  # the source lacks a byte, so the pieces spell another token
            continue
        rows += [row] * len(ids)
        columns += ids
        values += [1 / len(ids)] * len(ids)
    entries = (np.array(values, np.float32), (rows, columns))
    return mixed("pieces", csr_array(entries, shape=vocabularies.shape))


def _merges_alone(vocabularies: Vocabularies) -> Tokenizer:
    """The source's merges without its pre-tokenizer, so that the whole input is one word."""
    parts = json.loads(vocabularies.source.backend_tokenizer.to_str())
    for name in ("normalizer", "pre_tokenizer", "post_processor", "truncation", "padding"):
        parts[name] = None
    parts["added_tokens"] = []
    parts["model"]["dropout"] = None
    return Tokenizer.from_str(json.dumps(parts))
