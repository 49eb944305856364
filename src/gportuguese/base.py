"""The base model's files: where they are and what they hold; loads no torch."""

from __future__ import annotations

from pathlib import Path

from gportuguese import artifacts
from gportuguese.config import Architecture, UserError, resolve_path

_SETTINGS = ("*.json", "merges.txt", "vocab.txt", "tokenizer.model")
_VOCABULARIES = ("tokenizer.json", "vocab.json")
_WEIGHTS = (
    "*.safetensors",
    "pytorch_model*.bin",
)  # the second only where there is none of the first


class ModelError(UserError):
    """The base model cannot be had or cannot be used."""


def locate_base(base: str, download: bool) -> Path | None:
    """The folder or .gguf file of a base model; None for a Hub model not fetched yet.

    Raises `ModelError` if there is no such model.
    """
    path = resolve_path(base)
    if path.exists() or base.startswith(("package:", ".", "/", "~")) or path.suffix == ".gguf":
        if not path.exists():
            raise ModelError(f"no base model at {path}; set align.base")
        return path
    return hub_folder(base, download)


def hub_folder(repo: str, download: bool) -> Path | None:
    """The folder of a Hub model in huggingface_hub's cache; None for one not fetched yet.

    Raises `ModelError` if there is no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    for weights in _WEIGHTS:
        wanted = [*_SETTINGS, weights]
        try:
            cached = Path(snapshot_download(repo, allow_patterns=wanted, local_files_only=True))
        except LocalEntryNotFoundError:  # nothing, or not the whole of what is wanted
            continue
        except HFValidationError as error:
            raise ModelError(f"{repo!r} is neither a path nor a Hub id") from error
        # not if only the tokenizer was ever fetched, or only the model
        if any(cached.glob(weights)) and any((cached / name).exists() for name in _VOCABULARIES):
            return cached
    if not download:
        return None
    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(repo, allow_patterns=[*_SETTINGS, weights]))
            if any(folder.glob(weights)):
                return folder
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the Hub has no model {repo!r}, or hides it from you; check the name, or run "
            "`hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"cannot fetch {repo!r}: the Hub cannot be reached; check the network, unset "
            "HF_HUB_OFFLINE, or name a local folder or .gguf file"
        ) from error
    except Exception as error:
        raise ModelError(f"cannot fetch {repo!r} from the Hub: {error}") from error
    raise ModelError(f"{repo!r} on the Hub holds neither {' nor '.join(_WEIGHTS)}")


def identity_of(base: str | Architecture, download: bool) -> str | None:
    """The content hash that a base model enters the digests with; None if not fetched yet."""
    if isinstance(base, Architecture):
        return "fresh"  # all of it stands in the config section
    path = locate_base(base, download)
    if path is None:
        return None
    if path.is_file():
        return artifacts.remembered_hash(path)
    # what loading reads: a README or another program's files beside it change nothing
    weights = next(filter(None, (sorted(path.glob(pattern)) for pattern in _WEIGHTS)), [])
    settings = {file for pattern in _SETTINGS for file in path.glob(pattern)}
    return artifacts.hash_files(sorted({*settings, *weights}))
