"""The methods of `align.method`: how each fills rows, which files it needs, and what to cite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AlignMethod:
    """A way to initialize the embedding rows of the new vocabulary."""

    fills: tuple[str, ...]
    """Names in `align.FILLERS`, in order: each fills the rows that are still empty."""
    needs: tuple[str, ...] = ()
    """Required settings of the `align` section; all name files."""
    reads: tuple[str, ...] = ()
    """Optional file settings."""
    vectors: bool = False
    """Whether it needs gensim to train or read word vectors."""
    is_candidate: bool = False
    """Whether `auto` tries it."""
    citation: str = ""
    """BibTeX, for the model card."""


_GEE = """@inproceedings{gee2022fast,
  title = {Fast Vocabulary Transfer for Language Model Compression},
  author = {Gee, Leonidas and Zugarini, Andrea and Rigutini, Leonardo and Torroni, Paolo}, booktitle = {EMNLP}, year = {2022}}"""
_HEWITT = """@misc{hewitt2021initializing,
  title = {Initializing New Word Embeddings for Pretrained Language Models},
  author = {Hewitt, John}, year = {2021}}"""
_DOBLER = """@inproceedings{dobler2023focus,
  title = {FOCUS: Effective Embedding Initialization for Monolingual Specialization of Multilingual Models},
  author = {Dobler, Konstantin and de Melo, Gerard}, booktitle = {EMNLP}, year = {2023}}"""
_MINIXHOFER = """@inproceedings{minixhofer2022wechsel,
  title = {WECHSEL: Effective initialization of subword embeddings for cross-lingual transfer of monolingual language models},
  author = {Minixhofer, Benjamin and Paischer, Fabian and Rekabsaz, Navid}, booktitle = {NAACL}, year = {2022}}"""

METHODS = {
    "mean": AlignMethod(fills=("shared", "mean")),  # from GPorTuguese-2, which every card cites
    "gaussian": AlignMethod(fills=("shared", "gaussian"), citation=_HEWITT),
    "pieces": AlignMethod(fills=("shared", "pieces", "mean"), is_candidate=True, citation=_GEE),
    "focus": AlignMethod(
        fills=("shared", "focus", "gaussian"), vectors=True, is_candidate=True, citation=_DOBLER
    ),
    "wechsel": AlignMethod(
        fills=("shared", "wechsel", "gaussian"),
        needs=("source_documents", "dictionary"),
        reads=("source_vectors", "target_vectors"),
        vectors=True,
        is_candidate=True,
        citation=_MINIXHOFER,
    ),
    "bridge": AlignMethod(
        fills=("literal", "bridge", "shared", "pieces", "mean"),
        needs=("source_documents",),
        reads=("dictionary",),
        vectors=True,
        is_candidate=True,
        citation=_GEE,
    ),
}
