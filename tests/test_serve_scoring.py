"""lm-evaluation-harness, scoring through the server, gets the same nats as `gpt-pt evaluate`."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
import torch

from gportuguese import metrics
from gportuguese.config import asset_path
from gportuguese.generation import Sampling
from tests.live_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]

CLIENT = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
url, tokenizer, request = sys.argv[1:]
request = json.loads(request)
lm = LocalCompletionsAPI(
    base_url=url + "/v1/completions", model="nano", tokenizer=tokenizer,
    max_length=256, **request["options"])
def instances(kind, arguments):
    return [Instance(kind, {}, tuple(each), index) for index, each in enumerate(arguments)]
json.dump({
    "rolling": lm.loglikelihood_rolling(instances("loglikelihood_rolling", request["rolling"])),
    "pairs": lm.loglikelihood(instances("loglikelihood", request["pairs"])),
}, open(request["out"], "w"))
"""
WINDOW = 254  # tokens that the client scores per request with `max_length=256`


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the client and its HTTP packages, next to our own packages."""
    target = str(tmp_path_factory.mktemp("lm_eval"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", target]
    subprocess.run([*install, "--no-deps", "lm_eval"], check=True)
    subprocess.run([*install, "aiohttp", "tenacity"], check=True)
    return target


def nats_of(writer, ids, block_size):
    """The total nats of all ids except the first, measured like in `gpt-pt evaluate`."""
    assert (len(ids) - 1) % block_size == 0
    inputs_BT = torch.tensor(ids[:-1]).view(-1, block_size)
    targets_BT = torch.tensor(ids[1:]).view(-1, block_size)
    num_bytes = torch.ones(len(writer.tokenizer), dtype=torch.long)
    sums = metrics.TokenSums(num_bytes)
    found = metrics.measure(writer.model, [(inputs_BT, targets_BT)], sums, contextlib.nullcontext)
    return found.loss * targets_BT.numel()


@pytest.mark.parametrize("options", [{}, {"num_concurrent": 3, "batch_size": 2}])
def test_the_harness_gets_the_nats_of_evaluate(writer, packages, tmp_path, options):
    end = writer.tokenizer.eos_token_id
    story = " ".join(
        f"In {year} the city of São Paulo had {year % 97} new streets."
        for year in range(1900, 1990)
    )
    ids = writer.prompt_ids(story)
    # a text of whole windows that is tokenized to the same tokens again
    long_ids = ids[: len(ids) // WINDOW * WINDOW]
    long_text = writer.tokenizer.decode(long_ids)
    assert writer.prompt_ids(long_text) == long_ids
    assert len(long_ids) >= 4 * WINDOW
    short_text = "He was born in the United States and died in Coração de Jesus 🙂."
    greedy = next(writer.stream("The history of the city", Sampling(max_new_tokens=1, top_k=1)))
    pairs = [["The history of the city", greedy], ["He was born in the United", " banana"]]
    request = {"rolling": [[long_text], [short_text]], "pairs": pairs, "options": options}
    out = tmp_path / "found.json"
    with serving(writer) as url:
        words = [url, str(asset_path("english-nano")), json.dumps({**request, "out": str(out)})]
        subprocess.run(
            [sys.executable, "-c", CLIENT, *words],
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, packages])},
        )
    found = json.loads(out.read_text())
    short_ids = writer.prompt_ids(short_text)
    assert -found["rolling"][0] == pytest.approx(
        nats_of(writer, [end, *long_ids], WINDOW), rel=1e-5
    )
    assert -found["rolling"][1] == pytest.approx(
        nats_of(writer, [end, *short_ids], len(short_ids)), rel=1e-5
    )
    for (context, continuation), (logprob, is_greedy) in zip(pairs, found["pairs"], strict=True):
        whole, before = writer.prompt_ids(context + continuation), writer.prompt_ids(context)
        nats = nats_of(writer, whole, len(whole) - 1) - nats_of(writer, before, len(before) - 1)
        assert -logprob == pytest.approx(nats, abs=1e-3)
        assert is_greedy == (continuation == greedy)
