"""Other programs read the exported folder as we do, each in an environment of its own."""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from gportuguese import Pipeline, causal_lm, init_world, load_config, tokenizer
from tests.conftest import tiny_settings

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(1800)]

TEXT = "o rio custa ? Nada , diz o mar, coração !  's 1998"
KERAS = """
import sys, keras_hub, numpy
model = keras_hub.causal_lm.GPT2CausalLM.from_preset(sys.argv[1])
ids = numpy.array(model.preprocessor.tokenizer(sys.argv[2]))[None]
read = ids[:, :32]  # as far as the tiny model reads
logits = model({"token_ids": read, "padding_mask": numpy.ones_like(read)})
numpy.savez(sys.argv[3], ids=ids, logits=numpy.array(logits))
"""
TRANSFORMERS = """
import sys, numpy, torch, transformers
folder, text, out, version = sys.argv[1:]
assert transformers.__version__.startswith(version), transformers.__version__
model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
fast = transformers.AutoTokenizer.from_pretrained(folder)
slow = transformers.AutoTokenizer.from_pretrained(folder, use_fast=False)
# transformers 5 has no slow tokenizers any more
assert fast.is_fast and slow.is_fast == version.startswith("5")
ids = fast(text, return_tensors="pt")["input_ids"]
assert slow(text)["input_ids"] == ids[0].tolist()
assert fast.decode(ids[0]) == slow.decode(ids[0]) == text
assert slow.eos_token_id == fast.eos_token_id == model.config.eos_token_id
logits = model(ids[:, :32]).logits  # as far as the tiny model reads
numpy.savez(out, ids=ids.numpy(), logits=logits.detach().numpy())
"""
LLAMA_CPP = """
import sys, json, xllamacpp, numpy
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1] + "/model-f32.gguf"
parameters.n_ctx, parameters.n_parallel, parameters.warmup = 32, 1, False
ids = json.loads(sys.argv[4])
asked = {"prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 300}
answer = xllamacpp.Server(parameters).handle_completions(asked)
(found,) = answer["choices"][0]["logprobs"]["content"]
pairs = [(each["id"], each["logprob"]) for each in found["top_logprobs"]]
logits = numpy.full(300, numpy.nan)
logits[[id for id, _ in pairs]] = [logprob for _, logprob in pairs]
numpy.savez(sys.argv[3], logits=logits)
"""


@pytest.fixture(scope="module")
def build(tiny_dump, tmp_path_factory):
    """Returns the exported folder of a tiny run with more settings."""
    settings = tiny_settings(tiny_dump, tmp_path_factory.mktemp("artifacts"))

    def build(*more):
        config = load_config(None, (*settings, *more))
        return Pipeline(config).build("export", init_world(config.runtime))

    return build


@pytest.fixture(scope="module")
def artifact(build):
    return build()


@pytest.fixture(scope="module")
def untied(build):
    return build("align.tie=untie", "export.formats=[gguf-f32]")


def check(artifact, program, python, tmp_path, tolerance, *more, **environment):
    """The ids and logits that `program` finds equal ours, logits within `tolerance`."""
    out = tmp_path / "found.npz"
    words = [python, "-c", program, str(artifact.folder), TEXT, str(out), *more]
    subprocess.run(words, check=True, env={**os.environ, **environment}, cwd=tmp_path)
    found = np.load(out)
    assert found["ids"][0].tolist() == tokenizer.load(artifact.folder)(TEXT)["input_ids"]
    model = causal_lm.load(artifact.folder).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(found["ids"][:, :32]).long()).logits
    np.testing.assert_allclose(found["logits"], wanted.numpy(), rtol=0, atol=tolerance)


@pytest.fixture
def installed():
    """A folder for packages, gone after the test: pytest would keep it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_keras_hub_reads_the_folder_for_tensorflow(artifact, installed, tmp_path):
    venv.create(installed, with_pip=True)
    python = str(installed / "bin" / "python")
    packages = ["tensorflow-cpu", "keras-hub", "safetensors"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    check(artifact, KERAS, python, tmp_path, 1e-4, KERAS_BACKEND="tensorflow")


@pytest.mark.parametrize("tie", ["keep", "untie"])
def test_llama_cpp_reads_a_tied_and_an_untied_head(build, installed, tmp_path, tie):
    exported = build(f"align.tie={tie}", "export.formats=[gguf-f32]")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(installed), "xllamacpp"], check=True)
    ids, out = tokenizer.load(exported.folder)(TEXT)["input_ids"][:20], tmp_path / "found.npz"
    words = [sys.executable, "-c", LLAMA_CPP, str(exported.folder), TEXT, str(out), json.dumps(ids)]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(installed)})
    found = np.load(out)["logits"]
    with torch.no_grad():
        wanted = causal_lm.load(exported.folder).eval()(torch.tensor([ids])).logits[0, -1]
    assert np.isfinite(found).sum() > 250
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], wanted.log_softmax(0).numpy()[known], atol=1e-3)


@pytest.mark.parametrize(
    ("version", "tokenizers", "tolerance"),
    [
        ("4.40.2", "tokenizers<0.20", 1e-5),  # its attention rounds in another order
        ("4.44.2", "tokenizers<0.20", 0),
        ("4.57", "tokenizers<0.23", 0),
        ("5", None, 0),  # the one of this environment
    ],
)
def test_transformers_reads_the_folder_with_both_tokenizers(
    artifact, untied, installed, tmp_path, version, tokenizers, tolerance
):
    """Each release with the tokenizers of its time stands before ours on the path; torch is ours."""
    path = [str(installed), os.environ.get("PYTHONPATH", "")]
    if tokenizers is not None:
        packages = [f"transformers=={version}.*", tokenizers, "huggingface_hub<1"]
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*install, path[0], *packages], check=True)
    environment = {"PYTHONPATH": os.pathsep.join(path)}
    for exported in (artifact, untied):
        check(exported, TRANSFORMERS, sys.executable, tmp_path, tolerance, version, **environment)
