"""Shared fixtures: a tiny dump, the settings of a run that takes seconds, and two small models."""

import atexit
import bz2
import logging
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
# On a busy machine, threads that wait for each other spin: a step of a tiny model takes ten times the CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # keep the caches of file hashes and fonts apart from the user's own; workers share them
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gportuguese-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

from hypothesis import settings

from gportuguese.world import _num_cores

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("ci")

# Files are synced for a loss of power, which no test can cause, and each sync takes milliseconds.
# test_artifacts looks at the order of the syncs.
os.fsync = lambda handle: None

# a background job of a shell ignores SIGINT, and so would the commands that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_xdist_auto_num_workers(config):
    """A worker per core for the default run. Chosen tests run in this process, where output and pdb are at hand."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    # CUDA tests share one GPU; slow tests measure time and memory
    is_default = "not gpu" in config.option.markexpr
    return _num_cores() if is_whole and is_default else 0


WORDS = [
    "o",
    "rio",
    "corre",
    "para",
    "o",
    "mar",
    "e",
    "a",
    "cidade",
    "dorme",
    "enquanto",
    "as",
    "casas",
    "guardam",
    "a",
    "luz",
    "da",
    "lua",
    "sobre",
    "a",
    "serra",
    "onde",
    "pastores",
    "contam",
    "ovelhas",
    "junto",
    "ao",
    "muro",
    "de",
    "pedra",
    "velha",
]


def sentence(seed: int, length: int) -> str:
    """A sentence of `length` words, determined by the seed."""
    return " ".join(
        WORDS[(seed * 7 + step * step + step * seed) % len(WORDS)] for step in range(length)
    )


def page_xml(page_id: int, title: str, text: str, namespace: int = 0, redirect: str = "") -> str:
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>{page_id}</id>{redirect}"
        f"<revision><id>{page_id}</id><text>{text}</text></revision></page>\n"
    )


def dump_xml(pages: str) -> str:
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="pt">\n'
        f"<siteinfo><sitename>W</sitename></siteinfo>\n{pages}</mediawiki>\n"
    )


@pytest.fixture(scope="session")
def tiny_dump(tmp_path_factory):
    """A bz2 dump of 120 articles of random words."""
    path = tmp_path_factory.mktemp("dump") / "tiny.xml.bz2"
    pages = "".join(
        page_xml(number, f"Página {number}", f"'''Página''' {sentence(number, 120)} [[mar]].")
        for number in range(1, 121)
    )
    path.write_bytes(bz2.compress(dump_xml(pages).encode()))
    return path


@pytest.fixture
def tiny_overrides(tiny_dump, tmp_path):
    """The settings of a run that takes seconds: 3 layers, width 16, two phases."""
    return tiny_settings(tiny_dump, tmp_path / "artifacts")


@pytest.fixture(scope="session")
def tiny_stages(tiny_dump, tmp_path_factory):
    """An artifacts folder with the stages up to `align` of `tiny_overrides`."""
    from gportuguese import Pipeline, init_world, load_config

    folder = tmp_path_factory.mktemp("stages")
    config = load_config(None, tiny_settings(tiny_dump, folder))
    for stage in ("tokens", "align"):
        Pipeline(config).build(stage, init_world(config.runtime))
    return folder


@pytest.fixture
def built_stages(tiny_stages, tmp_path):
    """Copies `tiny_stages` into the artifacts folder of `tiny_overrides`."""
    return shutil.copytree(tiny_stages, tmp_path / "artifacts")


def recorded_progress(monkeypatch, module):
    """What each `track` of a module is told: amounts, and whether an earlier run did them."""
    reports = []

    @contextmanager
    def track(description, total):
        reports.append([])
        yield lambda amount, note="", *, resumed=False: reports[-1].append((amount, resumed))

    monkeypatch.setattr(f"{module}.track", track)
    return reports


def tiny_settings(dump, artifacts):
    """The settings of `tiny_overrides` for a given dump and artifacts folder."""
    return (
        f"dump.source={dump}",
        f"runtime.artifacts_dir={artifacts}",
        "runtime.device=cpu",
        "runtime.num_workers=1",
        "runtime.micro_batch_size=4",
        "corpus={min_chars: 100, valid_per_mille: 150, test_per_mille: 100}",
        "tokenizer={vocab_size: 300, min_frequency: 2}",
        "tokens={block_size: 32}",
        "align={base: {layers: 3, width: 16, heads: 2, positions: 32, dropout: 0.1}, method: random}",
        "train={global_batch_size: 8, epoch_tokens: 2048, valid_tokens: 512, tracker: none, "
        "phases: [{name: embeddings, epochs: 1, trainable_groups: 1, lr_max: 0.01, lr_ratio: 1}, "
        "{name: all, epochs: 2, trainable_groups: 4, lr_max: 0.01, lr_ratio: 2}]}",
        "evaluate={tokens: 512, prompts: [o rio], sample_tokens: 8}",
    )


def base_of(kind, folder):
    """Saves a small base with the package's English tokenizer; some weights are -0.0. Returns the folder.

    `gpt2` and `tied` (a Llama) share input and output rows, `untied` and `biased` (a Phi) do not.
    """
    import torch
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PhiConfig,
        PhiForCausalLM,
    )

    from gportuguese import causal_lm, tokenizer

    torch.manual_seed(0)
    bpe = causal_lm.load_with_tokenizer("package:english-nano")[1]
    shape = {
        "vocab_size": len(bpe) + 5,  # rows without a token, as many models have
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "tie_word_embeddings": kind in ("gpt2", "tied"),
    }
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**shape))
    elif kind == "biased":
        model = PhiForCausalLM(PhiConfig(**shape))
        torch.nn.init.normal_(model.lm_head.bias)
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    with torch.no_grad():
        for parameter in causal_lm.row_parameters(model):
            parameter[::7] = -0.0
    causal_lm.save(model, folder)
    tokenizer.save(bpe, folder)
    return folder


@pytest.fixture(scope="session")
def small_base(tmp_path_factory):
    """The folder of a GPT-2 with random weights and the package's English tokenizer."""
    return base_of("gpt2", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def writer():
    """The small English model shipped with the package."""
    from gportuguese.config import asset_path
    from gportuguese.generation import Writer

    return Writer.load(asset_path("english-nano"), "cpu")


@pytest.fixture(scope="session")
def llama(writer):
    """A Llama with random weights: rotary positions and fewer key heads than query heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gportuguese.generation import Writer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(writer.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=writer.tokenizer.eos_token_id,
        eos_token_id=writer.tokenizer.eos_token_id,
    )
    return Writer(LlamaForCausalLM(config).eval(), writer.tokenizer, "cpu")


@pytest.fixture(autouse=True)
def skip_without_data(request):
    """Skips tests marked `data`, which need real Wikipedia text, if that text is missing."""
    if request.node.get_closest_marker("data") and not SHARED.is_dir():
        pytest.skip("no real Wikipedia text in ../shared/data")


@pytest.fixture(autouse=True)
def remove_log_handlers():
    """Removes the command line's log handlers, which hold the standard error of their own test."""
    yield
    logging.getLogger("gportuguese").handlers.clear()
