"""Locates, fetches and hashes the files of the base model. Does not import torch."""

from __future__ import annotations

from pathlib import Path

from gportuguese import hashes
from gportuguese.config import Architecture, UserError, did_you_mean, is_path, resolve_path

_SETTINGS = ("*.json", "merges.txt", "vocab.txt", "tokenizer.model")
_VOCABULARIES = ("tokenizer.json", "vocab.json")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # the second only if the first is missing


class ModelError(UserError):
    """The base model cannot be found, fetched or used."""


def locate_base(base: str, download: bool) -> Path | None:
    """The folder or .gguf file of a base model; None for a Hub model that is not fetched yet.

    Raises `ModelError` if the model does not exist.
    """
    path = resolve_path(base)
    if path.exists() or is_path(base) or path.suffix == ".gguf":
        if not path.exists():
            raise ModelError(f"no base model at {path}{did_you_mean(path)}; set align.base")
        return path
    return hub_folder(base, download)


def hub_folder(repo: str, download: bool) -> Path | None:
    """The folder of a Hub model in huggingface_hub's cache; None if it is not fetched yet.

    Raises `ModelError` if the model does not exist.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    for weights in _WEIGHTS:
        wanted = [*_SETTINGS, weights]
        try:
            cached = Path(snapshot_download(repo, allow_patterns=wanted, local_files_only=True))
        except LocalEntryNotFoundError:  # nothing is cached, or not all of these files
            continue
        except HFValidationError as error:
            raise ModelError(f"{repo!r} is neither a path nor a Hub id") from error
        # an earlier download may have fetched only the tokenizer or only the weights
        if any(cached.glob(weights)) and any((cached / name).exists() for name in _VOCABULARIES):
            return cached
    if not download:
        return None
    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(repo, allow_patterns=[*_SETTINGS, weights]))
            if any(folder.glob(weights)):
                break
    except GatedRepoError as error:
        raise ModelError(
            f"{repo!r} is gated: accept its conditions at https://huggingface.co/{repo}, and run "
            "`hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"the Hub has no model {repo!r}, or you may not see it; check the name, or run "
            "`hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"cannot fetch {repo!r}: the Hub is unreachable; check the network, unset "
            "HF_HUB_OFFLINE, or name a local folder or .gguf file"
        ) from error
    except Exception as error:
        raise ModelError(f"cannot fetch {repo!r} from the Hub: {error}") from error
    if not any(folder.glob(weights)):
        raise ModelError(
            f"{repo!r} on the Hub has no weights ({' or '.join(_WEIGHTS)}); choose another model"
        )
    if not any((folder / name).exists() for name in _VOCABULARIES):
        raise ModelError(
            f"{repo!r} on the Hub has no byte-level BPE tokenizer ({' or '.join(_VOCABULARIES)}); "
            "choose another model"
        )
    return folder


def identity_of(base: str | Architecture, download: bool, with_weights: bool = True) -> str | None:
    """The content hash of a base model, for digests; None if it is not fetched yet.

    Without weights, it covers the files that say how to read text: those of config and tokenizer. A
    .gguf file is one whole.
    """
    if isinstance(base, Architecture):
        return "fresh"  # the config section already describes it
    path = locate_base(base, download)
    if path is None:
        return None
    if path.is_file():
        return hashes.remembered_hash(path)
    # only files that loading reads: a README or other files must not change the hash
    weights = next(filter(None, (sorted(path.glob(pattern)) for pattern in _WEIGHTS)), [])
    settings = {file for pattern in _SETTINGS for file in path.glob(pattern)}
    files = {*settings, *weights} if with_weights else settings
    return hashes.hash_files((file.name, file) for file in sorted(files))
