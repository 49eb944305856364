"""The Python API: its names, and the same results as the commands."""

import doctest
import importlib
import pkgutil
import subprocess
import sys
from dataclasses import replace
from itertools import chain

import pytest
import torch

import gportuguese
from gportuguese import (
    Config,
    ConfigError,
    Pipeline,
    UserError,
    corpus,
    evaluate,
    generate,
    load_config,
    load_model,
    make_learner,
    train,
)
from gportuguese.artifacts import Artifact
from gportuguese.config import PhaseConfig, TrainConfig, asset_path
from gportuguese.generation import GenerateError, Sampling, Writer
from gportuguese.metrics import TokenSums, measure

MODULES = [module.name for module in pkgutil.walk_packages(gportuguese.__path__, "gportuguese.")]


def test_no_public_name_is_also_a_module():
    """Importing a module binds its name in the package, and would hide the function."""
    assert not {f"gportuguese.{name}" for name in gportuguese.__all__} & set(MODULES)


@pytest.fixture
def unloaded_package():
    """Unloads the package during a test. The libraries stay loaded, because that takes seconds."""

    def unload():
        names = [name for name in sys.modules if name.partition(".")[0] == "gportuguese"]
        return {name: sys.modules.pop(name) for name in names}

    modules = unload()
    yield
    unload()
    sys.modules.update(modules)


@pytest.mark.usefixtures("unloaded_package")
def test_public_names_stay_functions_whatever_is_imported_first():
    for name in ("training", "evaluation", "generation"):
        importlib.import_module(f"gportuguese.{name}")
    package = importlib.import_module("gportuguese")
    assert package is not gportuguese
    public = {}
    exec("from gportuguese import *", public)
    names = ("train", "evaluate", "generate", "make_learner")
    assert [f"{public[name].__module__}:{public[name].__name__}" for name in names] == [
        "gportuguese.api:train",
        "gportuguese.api:evaluate",
        "gportuguese.api:generate",
        "gportuguese.interactive:make_learner",
    ]
    with pytest.raises(AttributeError, match="module 'gportuguese' has no attribute 'nothing'"):
        package.nothing  # noqa: B018
    assert "make_learner" in dir(package)


PHASE = PhaseConfig(name="a", epochs=1, trainable_groups=9, lr_max=1)


@pytest.mark.parametrize("use", [Pipeline, train, make_learner])
def test_a_config_built_in_python_is_checked_as_one_from_yaml(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(name="mine", train=TrainConfig(seed=-1, global_batch_size=9, phases=(PHASE,)))
    with pytest.raises(ConfigError) as caught:
        use(config)
    assert str(caught.value).splitlines() == [
        "the config 'mine':",
        "  - train.seed: -1 must be at least 0",
        "  - train.phases[0].trainable_groups: 9 must lie in [1, 4]",
    ]
    related = replace(load_config(), train=replace(load_config().train, global_batch_size=9))
    with pytest.raises(ConfigError, match="is not a multiple of runtime.micro_batch_size=8"):
        use(related)
    assert not list(tmp_path.iterdir())


def test_numbers_of_a_python_config_are_those_of_yaml():
    """Whole numbers and lists are converted, so that both have one digest."""
    phases = [PhaseConfig(name="a", epochs=1, trainable_groups=4, lr_max=1)]
    section = replace(load_config().train, phases=phases, weight_decay=0)
    ours = Pipeline(replace(load_config(), train=section)).config
    assert isinstance(ours.train.weight_decay, float)
    override = "train.phases=[{name: a, epochs: 1, trainable_groups: 4, lr_max: 1.0}]"
    assert ours == load_config(None, (override, "train.weight_decay=0.0"))


@pytest.mark.usefixtures("built_stages")
def test_evaluate_measures_what_the_report_says(tiny_overrides):
    config = load_config(None, (*tiny_overrides, "evaluate.tokens=null"))
    pipeline = Pipeline(config)
    report = pipeline.build("evaluate").facts["measures"]
    texts = list(chain.from_iterable(corpus.load(pipeline.open("corpus"), "valid")))
    folder = pipeline.open("train").folder
    block_size = config.tokens.block_size
    for model in (folder, load_model(folder)):
        measures = evaluate(model, texts, block_size=block_size, batch_size=3)
        found, wanted = dict(vars(measures)), dict(report["valid"])
        interval = found.pop("bits_per_byte_interval")
        assert interval == pytest.approx(wanted.pop("bits_per_byte_interval"), rel=1e-6)
        assert interval[0] < found["bits_per_byte"] < interval[1]
        assert found["documents"] == len(texts)
        assert found == pytest.approx(wanted, rel=1e-6)
    # one short text is one short block
    assert evaluate(folder, ["o rio corre"]).loss > 0
    for nothing in ([], [""], ["o"]):
        with pytest.raises(UserError, match="there is nothing to predict"):
            evaluate(folder, nothing)


def test_names_are_taken_where_a_config_is_and_mistakes_are_named(tmp_path):
    assert Pipeline("demo").config == load_config("demo")
    assert load_config("demo", "train.seed=1").train.seed == 1
    with pytest.raises(UserError, match="no stage 'corpse'; there are dump, corpus,"):
        Pipeline("demo").build("corpse")
    with pytest.raises(ConfigError, match="no config dmeo, did you mean demo"):
        load_config("dmeo")
    with pytest.raises(ConfigError, match="is a folder; pass the path of a YAML file"):
        load_config(tmp_path)
    for callbacks, message in (
        ("x", "put callbacks into a list"),
        ([print], "is no fastai callback"),
    ):
        with pytest.raises(UserError, match=message):
            train("demo", callbacks=callbacks)


def test_a_run_can_be_passed_where_a_model_is(writer):
    run = Artifact(asset_path("english-nano"), {})
    assert generate(run, "In", max_new_tokens=2) == generate(writer, "In", max_new_tokens=2)


def test_evaluate_takes_one_text_or_several(writer):
    text = "The house stands by the river."
    alone = evaluate(writer, text)
    assert alone == evaluate(writer, [text])
    assert (alone.documents, alone.bits_per_byte_interval) == (1, None)
    both = evaluate(writer, [text, "A letter came from the king."])
    assert both.documents == 2
    assert both.bits_per_byte_interval[0] < both.bits_per_byte < both.bits_per_byte_interval[1]


def test_a_failed_evaluation_leaves_the_model_as_it_was(writer):
    before = generate(writer, "The capital of", top_k=1)
    for block_size in (0, 257):
        with pytest.raises(UserError, match=r"must lie in \[1, 256\], the model's positions"):
            evaluate(writer, "A text.", block_size=block_size)
    with pytest.raises(ValueError, match="fp9"):
        measure(
            writer.model, [(torch.zeros(1, 2).long(),) * 2], TokenSums(torch.ones(4096)), _broken
        )
    assert generate(writer, "The capital of", top_k=1) == before


def _broken():
    raise ValueError("fp9")


def test_generate_takes_one_prompt_or_several(writer):
    options = {"max_new_tokens": 5, "temperature": 0.8, "seed": 3}
    alone = writer.write("The river", Sampling(**options))
    assert generate(writer, "The river", **options) == alone
    assert generate(writer, ["In", "The river"], **options)[1] == alone
    assert generate(asset_path("english-nano"), "The river", **options) == alone
    whole = generate(writer, "The river", **options)
    ended = generate(writer, "The river", stop=whole[3:], **options)
    assert ended == whole[:3] == generate(writer, "The river", stop=[whole[3:]], **options)
    with pytest.raises(GenerateError, match="top_p must be above 0"):
        generate(writer, "a", top_p=0)


def test_load_model_gives_transformers_own_classes():
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

    writer = load_model(asset_path("english-nano"), device="cpu")
    assert isinstance(writer, Writer)
    assert isinstance(writer.model, GPT2LMHeadModel)
    assert isinstance(writer.tokenizer, PreTrainedTokenizerBase)
    assert not writer.model.training


def test_a_script_needs_no_main_guard(tiny_overrides, tmp_path):
    """Workers must not run the script that starts them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from gportuguese import Pipeline, load_config\n"
        f"config = load_config(None, {tiny_overrides!r})\n"
        "print(sum(Pipeline(config).build('corpus').facts['documents'].values()))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config = load_config(None, tiny_overrides)
    documents = Pipeline(config).open("corpus").facts["documents"]
    assert done.stdout == f"{sum(documents.values())}\n"  # printed once


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory):
    """Where the examples run: they build the demo's stages once."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "demo").mkdir()  # hides no shipped config
    return folder


@pytest.mark.parametrize("name", ["gportuguese", *MODULES])
def test_examples_in_docstrings_run(name, example_folder, writer, monkeypatch):
    if name == "gportuguese.__main__":
        pytest.skip("importing it runs the command")
    module = importlib.import_module(name)
    monkeypatch.chdir(example_folder)
    found = doctest.testmod(module, extraglobs={"tokenizer": writer.tokenizer})
    assert found.failed == 0
