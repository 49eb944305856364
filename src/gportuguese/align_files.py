"""The files from outside the pipeline that the align stage reads, and its list of rows.

Does not import torch.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gportuguese import hashes
from gportuguese.config import (
    METHODS,
    AlignConfig,
    Architecture,
    CorpusConfig,
    UserError,
    did_you_mean,
    resolve_path,
)
from gportuguese.corpus import CorpusError
from gportuguese.corpus.files import FOLDER_KINDS, local_files

log = logging.getLogger("gportuguese")

SOURCES = "sources.parquet"
"""The file of the stage that says where each row comes from."""
FILES = ("source_documents", "dictionary", "source_vectors", "target_vectors")
"""The settings of the `align` section that name files."""


class AlignError(UserError):
    """A file that a method needs is missing or unusable."""


def candidates(section: AlignConfig) -> list[str]:
    """The methods that `auto` tries: all candidates whose required files are set.

    >>> candidates(AlignConfig(source_documents="english.jsonl.gz"))
    ['pieces', 'focus', 'bridge']
    """
    return [
        name
        for name, method in METHODS.items()
        if method.is_candidate and all(getattr(section, each) is not None for each in method.needs)
    ]


def methods_of(section: AlignConfig) -> list[str]:
    """The methods that the stage will use or try."""
    return candidates(section) if section.method == "auto" else [section.method]


def check_packages(section: AlignConfig) -> None:
    """Raises `AlignError` if a package is missing: gensim to train vectors, gguf to read a .gguf base."""
    if isinstance(section.base, str) and section.base.endswith(".gguf"):
        missing = [name for name in ("gguf", "accelerate") if not find_spec(name)]
        if missing:
            raise AlignError(
                f"align.base={section.base} needs {' and '.join(missing)}: "
                "pip install 'gportuguese[gguf]'"
            )
    needing = [name for name in methods_of(section) if name in METHODS and METHODS[name].vectors]
    if needing and not isinstance(section.base, Architecture) and not find_spec("gensim"):
        raise AlignError(
            f"align.method={section.method} needs gensim for {', '.join(needing)}: "
            "pip install 'gportuguese[vectors]', or set align.method=pieces"
        )


def resource_files(section: AlignConfig) -> dict[str, list[Path]]:
    """The files that the method reads, by setting; raises `AlignError` if one is missing."""
    files = {}
    methods = methods_of(section)
    tried = [METHODS[name] for name in methods if name in METHODS]
    read = {name for method in tried for name in (*method.needs, *method.reads)}
    for name in FILES:
        given = getattr(section, name)
        if given is None:
            continue
        if name not in read:
            log.info("align: align.%s is ignored by %s", name, ", ".join(methods))
            continue
        if name == "source_documents":
            try:
                files[name] = [Path(file.place) for file in local_files(given, FOLDER_KINDS)]
            except CorpusError as error:
                raise AlignError(f"align.source_documents={given}: {error}") from error
            continue
        path = resolve_path(given)
        if not path.is_file():
            what = name.replace("_", " ")
            raise AlignError(f"no {what} at {path}{did_you_mean(path)}; check align.{name}")
        files[name] = [path]
    return files


def hash_resources(section: AlignConfig) -> str:
    """Digest of the contents of the files that the method reads."""
    files = resource_files(section)
    return hashes.digest_of(
        {key: [hashes.remembered_hash(path) for path in paths] for key, paths in files.items()}
    )


def new_rows(folder: Path) -> np.ndarray:
    """The rows that the stage did not copy from the base, bool `[V]`."""
    kinds = pq.read_table(folder / SOURCES, columns=["row"])["row"].to_pylist()
    return np.array([kind != "copied" for kind in kinds])


def own_documents(section: AlignConfig) -> CorpusConfig:
    """A corpus config that reads the source documents."""
    return CorpusConfig(documents=section.source_documents, min_chars=1)
