"""Writes the folder that users load: weights, tokenizer, model card, and other checked formats."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard

from gportuguese import causal_lm, tokenizer
from gportuguese.artifacts import Artifact
from gportuguese.config import Config
from gportuguese.export import card, gguf, onnx
from gportuguese.export.checking import check, prompts_of
from gportuguese.export_formats import ExportError
from gportuguese.world import World

__all__ = ["ExportError", "build"]

log = logging.getLogger("gportuguese")

TOP_K, MAX_NEW_TOKENS = 40, 50  # as in the published model card


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Writes the folder; the facts hold the largest difference of each format from PyTorch.

    Raises `ExportError` if a format cannot be written or differs too much.
    """
    training = inputs["train"]
    source = training.folder / "model"
    model, bpe = causal_lm.load(source).eval(), tokenizer.load(source)
    generation = model.generation_config
    generation._from_model_config = False  # otherwise transformers overwrites the settings below
    generation.do_sample, generation.top_k = True, TOP_K
    generation.max_new_tokens = min(MAX_NEW_TOKENS, causal_lm.num_positions(model) // 2)
    causal_lm.save(model, out)
    tokenizer.save(bpe, out)
    prompts = prompts_of(inputs["evaluate"].facts["prompts"], bpe, causal_lm.num_positions(model))
    facts: dict[str, Any] = {
        "differences": {},
        "prompts": len(prompts),
        # for the card's examples; if `export.repo` is not set, `push` replaces it with its --repo
        "repo": config.export.repo or f"user/{config.name}",
        "parameters": causal_lm.count_parameters(model.parameters()),
        "end_of_text": bpe.eos_token,
    }
    for name in ("safetensors", *config.export.formats):
        log.info("export: writing %s", name)
        start = time.monotonic()
        facts["differences"][name] = check(name, model, prompts, _write(name, model, out))
        log.info("export: %s agrees with PyTorch, %.1f s", name, time.monotonic() - start)
    shutil.copy(inputs["evaluate"].folder / "curves.png", out / "curves.png")
    text = card.make(config, inputs, facts, _names_of(out))
    (out / "README.md").write_text(str(text), encoding="utf-8")
    ModelCard.load(out / "README.md")  # checks that the metadata parses
    return facts


def _write(name: str, model: Any, out: Path) -> Any:
    """Writes a format and returns a function from ids `[B, T]` to its logits."""
    if name == "safetensors":
        return _logits_of(causal_lm.load(out).eval())
    if name == "bin":
        path = out / "pytorch_model.bin"
        torch.save(model.state_dict(), path)
        twin = type(model)(model.config).eval()
        twin.load_state_dict(torch.load(path, weights_only=True))
        return _logits_of(twin)
    if name == "onnx":
        return onnx.write(model, out / "model.onnx")
    kind = name.removeprefix("gguf-")
    path = out / f"model-{kind}.gguf"
    gguf.write(model, out, path, kind)
    twin = type(model)(model.config).eval()
    twin.load_state_dict(gguf.read(path, twin), strict=False)  # the file omits a tied head
    return _logits_of(twin)


def _logits_of(model: Any) -> Any:
    @torch.no_grad()
    def logits(ids_BT: torch.Tensor) -> torch.Tensor:
        return model(ids_BT).logits  # type: ignore[no-any-return]

    return logits


def _names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
