"""The model as ONNX: `input_ids`, `attention_mask` to `logits`, any batch and length, no cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gportuguese.export.checking import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Logits(torch.nn.Module):
    """The model with tensors in and out, as exporting wants it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, V]`."""
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return outputs.logits  # type: ignore[no-any-return]


def write(model: PreTrainedModel, path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Writes the file, and returns what ONNX Runtime makes of ids `[B, T]`: logits `[B, T, V]`.

    Raises `ExportError` without the packages of the `export` extra.
    """
    ids_BT = torch.zeros(2, 8, dtype=torch.int64)  # neither one, which would be kept as a constant
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own export, which is checked below
        try:
            import onnxruntime
            import onnxscript  # noqa: F401 - torch needs it to export
        except ImportError as error:
            raise ExportError(f"onnx: {error}; pip install 'gportuguese[export]'") from error
        torch.onnx.export(
            _Logits(model).eval(),
            (ids_BT, torch.ones_like(ids_BT)),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamo=True,
            dynamic_shapes={"input_ids": shape, "attention_mask": shape},
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path))

    def logits(ids_BT: torch.Tensor) -> torch.Tensor:
        feed = {"input_ids": ids_BT.numpy(), "attention_mask": torch.ones_like(ids_BT).numpy()}
        return torch.from_numpy(session.run(None, feed)[0])

    return logits
