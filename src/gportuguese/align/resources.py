"""The texts and the dictionary that alignment methods use, read on first use."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np

from gportuguese.align.rows import Vocabularies
from gportuguese.align.vectors import Sentences, counts_of, cut
from gportuguese.align_files import AlignError, own_documents
from gportuguese.artifacts import Artifact
from gportuguese.config import AlignConfig, resolve_path
from gportuguese.corpus import Document
from gportuguese.corpus.documents import read_own
from gportuguese.tokenizer import plain_backend
from gportuguese.tokens import BlockLoader, load_ids

log = logging.getLogger("gportuguese")

_END = -1  # separates source documents; no tokenizer uses this id
_SLICE_CHARS = 1 << 16  # long texts are cut into slices; 64 slices are encoded at once
_SLICE = 1 << 20  # tokens counted at once
_BATCH_TOKENS = 1024  # per forward pass
_STEP_TOKENS = 512  # of distillation and of the head fit


@dataclass(frozen=True)
class Resources:
    """The first `align.vector_tokens` tokens of each language, and the dictionary."""

    section: AlignConfig
    tokens: Artifact
    vocabularies: Vocabularies
    block_size: int

    @cached_property
    def target_ids(self) -> np.ndarray:
        """The ids of the training text in the new language, memory-mapped."""
        ids = load_ids(self.tokens.folder, "train", self.tokens.facts["dtype"])
        return ids[: self.tokens.facts.get("target_tokens")]  # then come other languages

    @cached_property
    def target_counts(self) -> np.ndarray:
        """The count of each token, including end of text, in the target text; int64 `[V_target]`."""
        ids, size = self.target_ids[: self.section.vector_tokens], self.vocabularies.shape[0]
        return counts_of(lambda: iter(np.split(ids, range(_SLICE, len(ids), _SLICE))), size)

    def blocks(self, num_tokens: int) -> BlockLoader:
        """About `num_tokens` tokens of the training text, in blocks spread evenly over it."""
        num_blocks = max(1, num_tokens // self.block_size)
        batch_size = max(1, _BATCH_TOKENS // self.block_size)
        return BlockLoader(self.target_ids, self.block_size, batch_size, num_blocks=num_blocks)

    def shuffled_blocks(
        self, setting: Literal["distill_tokens", "head_tokens"], skipped: int = 0
    ) -> BlockLoader:
        """About as many tokens as a setting says, in random blocks, after `skipped` tokens in others.

        At most the whole training text, with a warning. Of a text shorter than both, some blocks may come
        twice.
        """
        num_tokens = int(getattr(self.section, setting))
        if num_tokens > len(self.target_ids):
            log.warning(
                f"align.{setting}={num_tokens:,} is more than the {len(self.target_ids):,} tokens of the "
                "training text in the new language; all of them are read once"
            )
        seed, batch_size = self.section.seed, max(1, _STEP_TOKENS // self.block_size)
        total = (len(self.target_ids) - 1) // self.block_size
        num_blocks = min(max(1, num_tokens // self.block_size), total)
        loader = BlockLoader(
            self.target_ids, self.block_size, batch_size, seed=seed, num_blocks=num_blocks
        )
        loader.epoch = -(-skipped // (num_blocks * self.block_size))
        return loader

    @cached_property
    def target(self) -> Sentences:
        """The training text in the new language."""
        end = int(self.tokens.facts["end_of_text"])
        return lambda: cut(self.target_ids, self.section.vector_tokens, end)

    @cached_property
    def source(self) -> Sentences:
        """The text in the base model's language; raises `AlignError` if there is none."""
        if self.section.source_documents is None:
            raise AlignError(
                "this method needs text in the base model's language; set align.source_documents "
                "to a .jsonl, .parquet or .txt file"
            )
        backend, pieces, num_tokens = plain_backend(self.vocabularies.source), [], 0
        texts = (
            document.text[start : start + _SLICE_CHARS]
            for document in read_own(own_documents(self.section))
            if isinstance(document, Document)
            for start in range(0, len(document.text), _SLICE_CHARS)
        )
        while num_tokens < self.section.vector_tokens and (batch := list(islice(texts, 64))):
            for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                pieces.append(np.array([*encoding.ids, _END], np.int32))
                num_tokens += len(encoding.ids)
        if not num_tokens:
            raise AlignError(f"no text in {self.section.source_documents}")
        ids_of_all = np.concatenate(pieces)
        return lambda: cut(ids_of_all, self.section.vector_tokens, _END)

    def dictionary(self) -> list[tuple[str, str]]:
        """Pairs `(source word, target word)`; empty without a file.

        Raises `AlignError` for a line that is not a pair.
        """
        if self.section.dictionary is None:
            return []
        path, pairs = resolve_path(self.section.dictionary), []
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise AlignError(f"{path} is not UTF-8: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            words = line.split("\t")
            if len(words) < 2 or not (words[0].strip() and words[1].strip()):
                raise AlignError(f"{path}:{number}: {line!r} is not 'source<TAB>target'")
            pairs.append((words[0].strip(), words[1].strip()))
        return pairs
