"""What identifies the result of each stage: the settings that change it, and files from outside.

Does not import torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gportuguese import artifacts, base, dump, hashes, plugins
from gportuguese.config import Config, as_tree, sources_of, uses_dump
from gportuguese.wikitext import hash_tables

Folders = Callable[[str], Path | None]
"""Maps the name of a stage to its folder; None while the folder is unknown."""
Hashes = dict[str, str | None]
"""Content hashes of files from outside the pipeline; None for files that are not fetched yet."""


def section_of(*keys: str) -> Callable[[Config], dict[str, Any]]:
    """Returns a function that picks a section of the config, and single settings by full key."""

    def settings(config: Config) -> dict[str, Any]:
        tree = as_tree(config)
        section = dict(tree[keys[0]])
        for key in keys[1:]:
            section[key] = functools.reduce(dict.__getitem__, key.split("."), tree)
        return section

    return settings


def dump_settings(config: Config) -> dict[str, Any]:
    """The settings of a download; none of a local file, which is identified by its content."""
    if not dump.is_remote(config.dump):
        return {}
    # every mirror has the same files; the default keeps the digests of earlier downloads
    return {**section_of("dump")(config), "mirror": None}


def dump_file(config: Config, folders: Folders) -> Hashes:
    """The hash of a local dump."""
    if dump.is_remote(config.dump):
        return {}
    return {"content": hashes.remembered_hash(dump.local_path(config.dump))}


def dump_content(folder: Path) -> str | None:
    """The SHA-256 of the dump that a stage's folder names; None before it is built."""
    return str(artifacts.read_manifest(folder).facts["sha256"]) if folder.is_dir() else None


def corpus_settings(config: Config) -> dict[str, Any]:
    """The settings of documents and splits; files of documents are identified by their content."""
    section = section_of("corpus")(config)
    del section["exclude"]  # identified by content instead
    if not section.pop("sources"):  # the digests from before there were sources
        return section if config.corpus.documents is None else {**section, "documents": "own"}
    # documents are identified by their content, and a weight changes no document
    settings = [dict(as_tree(source)) for source in sources_of(config.corpus)]
    for each in settings:
        del each["documents"], each["revision"], each["weight"]
    return {**section, "sources": settings}


def mix_settings(config: Config) -> dict[str, Any]:
    """The weights by source, and the seed of the draw; empty unless sources have weights."""
    weights = {str(source.name): source.weight for source in sources_of(config.corpus)}
    if len(weights) == 1 or not any(weights.values()):
        return {}
    return {"weights": weights, "seed": config.tokens.seed}


def corpus_files(config: Config, folders: Folders) -> Hashes:
    """The identities of own documents, the language's tables, and the texts of `corpus.exclude`."""
    excluded: Hashes = {}
    if config.corpus.exclude:
        from gportuguese import corpus  # only now: it loads numpy

        excluded = {"excluded": corpus.hash_excluded(config.corpus)}
    return {**_documents_and_tables(config, folders), **excluded}


def _documents_and_tables(config: Config, folders: Folders) -> Hashes:
    hashes: Hashes = {}
    if config.corpus.sources or config.corpus.documents is not None:
        from gportuguese import corpus  # only now: it loads numpy

        name = "sources" if config.corpus.sources else "documents"
        hashes[name] = corpus.identify_sources(config.corpus, download=False)
    if uses_dump(config.corpus):
        folder = folders("dump")
        hashes["tables"] = None
        if folder is not None and folder.is_dir():
            hashes["tables"] = hash_tables(str(artifacts.read_manifest(folder).facts["language"]))
    return hashes


def tokenizer_settings(config: Config) -> dict[str, Any]:
    """The settings of the tokenizer."""
    section = section_of("tokenizer")(config)
    if section["method"] == "retrain":
        del section["method"]  # keeps the digests of runs from before there was a choice
    return section


def base_tokenizer(config: Config, folders: Folders) -> Hashes:
    """The identity of the base's tokenizer, if it is extended."""
    if config.tokenizer.method == "retrain":
        return {}
    return {"base": base.identity_of(config.align.base, download=False, with_weights=False)}


def align_settings(config: Config) -> dict[str, Any]:
    """The settings of the alignment; its files are identified by their content."""
    from gportuguese.align_files import FILES  # only now: it loads numpy

    section = section_of("align", "tokens.block_size")(config)
    for key in FILES:  # identified by their content instead
        del section[key]
    for key, before in (("tie", "keep"), ("distill_tokens", 0), ("head_tokens", 0)):
        if section[key] == before:  # runs from before these settings keep their digests
            del section[key]
    return {**section, "base": "given"} if isinstance(config.align.base, str) else section


def base_and_resources(config: Config, folders: Folders) -> Hashes:
    """The identities of the base model and of the files of the `align` section."""
    from gportuguese.align_files import hash_resources

    return {
        "base": base.identity_of(config.align.base, download=False),
        "resources": hash_resources(config.align),
    }


def train_settings(config: Config) -> dict[str, Any]:
    """The recipe, with the names of callbacks and without the tracker, which only logs."""
    section = section_of("train", "tokens.block_size")(config)
    del section["tracker"]
    *others, last = section["phases"]
    for phase in others:
        if phase["trainable"] == "new_rows":
            phase["moments"] = "dropped"  # earlier versions kept them for the next phase
    for phase in (*others, last):
        if phase["trainable"] == "groups":
            del phase["trainable"]  # keeps the digests of runs from before there was a choice
    named = plugins.digest_settings(section.pop("callbacks"))
    # runs from before `tracker` hashed `tensorboard`, and those from before `boundaries` hashed nothing;
    # the defaults keep their digests
    boundaries = config.tokens.boundaries
    packed = {} if boundaries == "none" else {"tokens.boundaries": boundaries}
    return {**section, "tensorboard": True, **named, **packed}


def dump_receipt(config: Config, folders: Folders) -> Hashes:
    """The dump's folder, because the card prints facts that differ between a download and a local file."""
    if not uses_dump(config.corpus):
        return {}
    folder = folders("dump")
    return {"receipt": None if folder is None else folder.name}
