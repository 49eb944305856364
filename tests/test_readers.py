"""Other programs read the exported folder as we do, each in an environment of its own."""

import os
import subprocess
import sys
import venv

import numpy as np
import pytest
import torch

from gportuguese import Pipeline, init_world, load_config
from gportuguese import model as models

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(1800)]

TEXT = "o rio corre para o mar, coração! 1998"
KERAS = """
import sys, keras_hub, numpy
model = keras_hub.models.GPT2CausalLM.from_preset(sys.argv[1])
ids = numpy.array(model.preprocessor.tokenizer(sys.argv[2]))[None]
logits = model({"token_ids": ids, "padding_mask": numpy.ones_like(ids)})
numpy.savez(sys.argv[3], ids=ids, logits=numpy.array(logits))
"""
TRANSFORMERS_4 = """
import sys, numpy, torch, transformers
assert transformers.__version__.startswith("4."), transformers.__version__
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
fast = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
slow = transformers.GPT2Tokenizer.from_pretrained(sys.argv[1])
assert fast.is_fast and not slow.is_fast
ids = fast(sys.argv[2], return_tensors="pt")["input_ids"]
assert slow(sys.argv[2])["input_ids"] == ids[0].tolist()
assert slow.eos_token_id == fast.eos_token_id == model.config.eos_token_id
numpy.savez(sys.argv[3], ids=ids.numpy(), logits=model(ids).logits.detach().numpy())
"""


@pytest.fixture
def artifact(tiny_overrides):
    config = load_config(None, tiny_overrides)
    return Pipeline(config).build("export", init_world(config.runtime))


def check(artifact, program, python, tmp_path, tolerance, **environment):
    """The logits that `program` finds equal ours within `tolerance`."""
    out = tmp_path / "found.npz"
    words = [python, "-c", program, str(artifact.folder), TEXT, str(out)]
    subprocess.run(words, check=True, env={**os.environ, **environment}, cwd=tmp_path)
    found = np.load(out)
    model = models.load(artifact.folder).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(found["ids"]).long()).logits
    np.testing.assert_allclose(found["logits"], wanted.numpy(), rtol=0, atol=tolerance)


def test_keras_hub_reads_the_folder_for_tensorflow(artifact, tmp_path):
    venv.create(tmp_path / "keras", with_pip=True)
    python = str(tmp_path / "keras" / "bin" / "python")
    packages = ["tensorflow-cpu", "keras-hub", "safetensors"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    check(artifact, KERAS, python, tmp_path, 1e-4, KERAS_BACKEND="tensorflow")


def test_transformers_4_reads_the_folder_with_both_tokenizers(artifact, tmp_path):
    """Its own release before our torch."""
    target = tmp_path / "transformers4"
    packages = ["transformers<5", "tokenizers<=0.23.0", "huggingface_hub<1"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(target), *packages], check=True)
    check(artifact, TRANSFORMERS_4, sys.executable, tmp_path, 0, PYTHONPATH=str(target))
