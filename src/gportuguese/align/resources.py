"""The texts, dictionary and vectors that a method may need, read only when it asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gportuguese import tokens
from gportuguese.align.rows import Vocabularies
from gportuguese.align.vectors import AlignError, Sentences, cut
from gportuguese.artifacts import Artifact
from gportuguese.config import AlignConfig, CorpusConfig, resolve_path
from gportuguese.corpus import Document, document_files
from gportuguese.corpus.documents import read_own


def resource_files(section: AlignConfig) -> list[Path]:
    """The files that the section names; raises `AlignError` for one that is not there."""
    files = []
    for name in ("dictionary", "source_vectors", "target_vectors"):
        given = getattr(section, name)
        if given is not None:
            files.append(resolve_path(given))
            if not files[-1].is_file():
                raise AlignError(f"no file at {files[-1]}; see align.{name}")
    if section.source_documents is not None:
        if not resolve_path(section.source_documents).exists():
            raise AlignError(
                f"no documents at {resolve_path(section.source_documents)}; see align.source_documents"
            )
        files += document_files(_own(section))
    return files


@dataclass(frozen=True)
class Resources:
    """What a section gives: the first `align.vector_tokens` tokens of each language, and the rest."""

    section: AlignConfig
    tokens: Artifact
    vocabularies: Vocabularies

    @cached_property
    def target(self) -> Sentences:
        """The training text in the new language."""
        ids = tokens.load_ids(self.tokens.folder, "train", self.tokens.facts["dtype"])
        return lambda: cut(ids, self.section.vector_tokens)

    @cached_property
    def source(self) -> Sentences:
        """The text in the base model's language; raises `AlignError` where there is none."""
        if self.section.source_documents is None:
            raise AlignError(
                "this method needs text in the base model's language; set align.source_documents "
                "to a .jsonl, .parquet or .txt file"
            )
        backend, pieces, num_tokens = self.vocabularies.source.backend_tokenizer, [], 0
        for document in read_own(_own(self.section)):
            if num_tokens >= self.section.vector_tokens:
                break
            if isinstance(document, Document):
                ids = backend.encode(document.text, add_special_tokens=False).ids
                pieces.append(np.array(ids, np.int32))
                num_tokens += len(ids)
        if not num_tokens:
            raise AlignError(f"no text in {self.section.source_documents}")
        ids_of_all = np.concatenate(pieces)
        return lambda: cut(ids_of_all, self.section.vector_tokens)

    def dictionary(self, required: bool) -> list[tuple[str, str]]:
        """Pairs `(source word, target word)`; raises `AlignError` for a line that is no pair."""
        if self.section.dictionary is None:
            if required:
                raise AlignError(
                    "this method needs align.dictionary, a file of lines 'source<TAB>target'"
                )
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
            if len(words) < 2:
                raise AlignError(f"{path}:{number}: {line!r} is not 'source<TAB>target'")
            pairs.append((words[0].strip(), words[1].strip()))
        return pairs


def _own(section: AlignConfig) -> CorpusConfig:
    return CorpusConfig(documents=section.source_documents, min_chars=1)
