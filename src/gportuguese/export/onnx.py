"""Writes the model as ONNX: from `input_ids` and `attention_mask` to `logits`, without a cache.

The graph accepts any batch size and length. It computes positions from the attention mask, so prompts
of different lengths may be padded on either side.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gportuguese.export_formats import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Logits(torch.nn.Module):
    """The model with tensors as inputs and outputs, for the exporter."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        # models without positions (ALiBi), and those that compute them (OPT), do not accept any
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, V]`."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.takes_positions:
            inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        return self.model(**inputs, use_cache=False).logits  # type: ignore[no-any-return]


def write(model: PreTrainedModel, path: Path) -> Callable[..., torch.Tensor]:
    """Writes the file and returns a function that runs it in ONNX Runtime.

    The function takes ids and, optionally, the attention mask, both `[B, T]`, and returns logits
    `[B, T, V]`. Raises `ExportError` if the packages of the `export` extra are not installed.
    """
    ids_BT = torch.zeros(2, 8, dtype=torch.int64)  # sizes of 1 would be exported as constants
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch warns about its exporter; `checking` tests the result
        try:
            import onnxruntime  # noqa: F401 - found missing before the export, which takes long
            import onnxscript  # noqa: F401 - torch needs it to export
        except ImportError as error:
            raise ExportError(f"onnx: {error}; run: pip install 'gportuguese[export]'") from error
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
    return reader(path)


def reader(path: Path) -> Callable[..., torch.Tensor]:
    """A function that runs a file in ONNX Runtime, as `write` returns it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))

    def logits(ids_BT: torch.Tensor, mask_BT: torch.Tensor | None = None) -> torch.Tensor:
        mask_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT
        feed = {"input_ids": ids_BT.numpy(), "attention_mask": mask_BT.numpy()}
        return torch.from_numpy(session.run(None, feed)[0])

    return logits
