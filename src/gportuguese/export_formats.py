"""Whether the formats of `export.formats` can be written here. Does not import torch."""

from __future__ import annotations

import json
from importlib.util import find_spec

from gportuguese import base
from gportuguese.config import FORMATS, Config, UserError


class ExportError(UserError):
    """A format cannot be written, or differs from the model."""


def check_formats(config: Config) -> None:
    """Raises `ExportError` if a format cannot be written here or for the base model.

    Called before anything is built, because training may take hours.
    """
    formats = config.export.formats
    missing = {name for each in formats for name in FORMATS[each].packages if not find_spec(name)}
    if missing:
        raise ExportError(
            f"export.formats={', '.join(formats)} needs {', '.join(sorted(missing))}: "
            "pip install 'gportuguese[export]'"
        )
    kind = _model_type(config)
    if kind not in (None, "gpt2") and any(each.startswith("gguf") for each in formats):
        raise gguf_needs_gpt2(kind)


def gguf_needs_gpt2(kind: str) -> ExportError:
    """The error for a model of another architecture."""
    return ExportError(
        f"gguf: supports only GPT-2, not {kind}; to convert the exported folder, use llama.cpp's "
        "convert_hf_to_gguf.py"
    )


def _model_type(config: Config) -> str | None:
    """The architecture of the base model; None if it is not known before the model is loaded."""
    if not isinstance(config.align.base, str):
        return "gpt2"
    folder = base.locate_base(config.align.base, download=False)
    if folder is None or not (folder / "config.json").is_file():
        return None
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    return None if kind is None else str(kind)
