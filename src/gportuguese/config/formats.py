"""The formats of `export.formats`: what each needs, and how close it must be to the PyTorch model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format besides safetensors."""

    tolerance: float
    """Largest allowed difference of log-probabilities, in nats."""
    same_tokens: bool = True
    """Whether the most likely tokens must be the same."""
    packages: tuple[str, ...] = ()
    """The packages that it needs, all in the extra `export`."""


FORMATS = {
    "bin": ExportFormat(tolerance=0.0),
    # torch needs onnxscript to export; onnxruntime checks the result
    "onnx": ExportFormat(tolerance=1e-4, packages=("onnx", "onnxscript", "onnxruntime")),
    "gguf-f32": ExportFormat(tolerance=1e-4, packages=("gguf",)),
    "gguf-f16": ExportFormat(tolerance=1e-2, same_tokens=False, packages=("gguf",)),
    "gguf-q8_0": ExportFormat(tolerance=0.5, same_tokens=False, packages=("gguf",)),
}
