"""Copies a trained model folder into src/gportuguese/assets/english-nano, in half precision.

    python scripts/package_base.py artifacts/train-...

Loading converts it back to float32. The card takes its numbers from the run's manifest.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

ASSET = Path(__file__).parent.parent / "src/gportuguese/assets/english-nano"


def main() -> None:
    """Writes the asset."""
    run = Path(sys.argv[1])
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    facts = manifest["facts"]
    shutil.rmtree(ASSET, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(
        run / "model", dtype=torch.float32, trust_remote_code=False
    )
    model.half().save_pretrained(ASSET)
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
    for name in names:
        shutil.copy(run / "model" / name, ASSET)
    measures = facts["measures"]
    size = sum(parameter.numel() for parameter in model.parameters())
    (ASSET / "README.md").write_text(
        f"""# english-nano

A GPT-2 of {model.config.n_layer} layers, {model.config.n_embd} wide, {model.config.n_head} heads,
{model.config.n_positions} positions, a vocabulary of {model.config.vocab_size} and {size:,}
parameters: the base of the demonstration, small enough to travel with the package. Not good for
anything else.

| | |
| --- | --- |
| data | paragraphs of English Wikipedia (10 MB, CC BY-SA 3.0 / GFDL) |
| trained on | {facts["tokens"]:,} tokens, from scratch, `configs/english-nano.yaml` |
| validation loss | {measures["loss"]:.4f} nats per token (perplexity {measures["perplexity"]:.1f}) |
| bits per byte | {measures["bits_per_byte"]:.4f} |
| took | {facts["train_seconds"]:.0f} s on {facts["device"]} |
| made with | torch {manifest["versions"]["torch"]}, transformers {manifest["versions"]["transformers"]} |
""",
        encoding="utf-8",
    )
    print(ASSET)


if __name__ == "__main__":
    main()
