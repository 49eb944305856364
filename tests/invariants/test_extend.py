"""Adding to a vocabulary: the old rows stay bit for bit, through alignment and a phase of new rows."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fastai.learner import Recorder
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from gportuguese import Pipeline, artifacts, causal_lm, init_world, load_config, training
from gportuguese.align_files import new_rows
from gportuguese.callbacks import TrainableRows
from gportuguese.config import METHODS, ConfigError, PhaseConfig, UserError, asset_path
from gportuguese.learner import learning_rates, trainable_part
from tests.conftest import WORDS, base_of, sentence, tiny_settings
from tests.invariants.test_distributed import assert_equal, torchrun, trained
from tests.invariants.test_equal_runs import build, elsewhere
from tests.invariants.test_resume import OFTEN, StopAt
from tests.test_cli import gpt_pt, sets
from tests.test_learner import prepared
from tests.test_optimizer import needs_muon

OLD, NEW = 4096, 24
NO_DROPOUT = "train.dropout=0.0"
NEW_ROWS = "{name: new, epochs: 1, trainable: new_rows, trainable_groups: 1, lr_max: 0.05}"
EMBEDDINGS = "{name: embeddings, epochs: 1, trainable_groups: 1, lr_max: 0.01}"
ALL = "{name: all, epochs: 1, trainable_groups: 4, lr_max: 0.01}"


def phases(*each):
    return f"train.phases=[{', '.join(each)}]"


def extending(settings, base):
    """The tiny run; it adds tokens to a base with the package's English tokenizer."""
    return (
        *settings,
        f"align.base={base}",
        "align.calibration_tokens=1024",
        "align.method=pieces",
        f"tokenizer={{method: extend, vocab_size: {OLD + NEW}}}",
        "train.weight_decay=0.1",
        phases(ALL, NEW_ROWS),
    )


@pytest.fixture(scope="module")
def extended(tiny_dump, tiny_stages, small_base, tmp_path_factory):
    """An artifacts folder with the stages up to `align` that extend the vocabulary of a small GPT-2."""
    folder = shutil.copytree(tiny_stages, tmp_path_factory.mktemp("extended") / "artifacts")
    config = load_config(None, extending(tiny_settings(tiny_dump, folder), small_base))
    Pipeline(config).build("align", init_world(config.runtime))
    return folder


@pytest.fixture
def overrides(tiny_overrides, small_base, extended, tmp_path):
    """A run whose stages before training are built."""
    shutil.copytree(extended, tmp_path / "artifacts")
    return extending(tiny_overrides, small_base)


def bits(parameter):
    """A tensor whose equality tells -0.0 from 0.0."""
    return parameter.detach().contiguous().view(torch.int32)


def rows_of(folder):
    return causal_lm.row_parameters(causal_lm.load(folder))


@pytest.mark.parametrize(
    ("kind", "method", "more"),
    [("tied", name, ()) for name in (*METHODS, "auto")]
    + [("untied", "pieces", ()), ("biased", "pieces", ()), ("biased", "bridge", ())]
    + [("tied", "pieces", ("align.tie=untie", "align.distill_tokens=1024"))],
)
def test_alignment_keeps_every_old_row_bit_for_bit(overrides, tmp_path, kind, method, more):
    text, words = tmp_path / "text.jsonl", tmp_path / "words.tsv"
    text.write_text("".join(json.dumps({"text": sentence(n, 120)}) + "\n" for n in range(60)))
    words.write_text("".join(f"{word}\t{word}\n" for word in sorted(set(WORDS))))
    files = (f"align.source_documents={text}", f"align.dictionary={words}")
    base = f"align.base={base_of(kind, tmp_path / 'base')}"
    config = load_config(None, (*overrides, base, f"align.method={method}", *files, *more))
    made = Pipeline(config).build("align", init_world(config.runtime))
    source = causal_lm.load(tmp_path / "base")
    parameters = causal_lm.row_parameters(source)
    assert len(parameters) == {"tied": 1, "untied": 2, "biased": 3}[kind]
    if more:  # the head begins as a copy of the embeddings
        parameters *= 2
    for old, new in zip(parameters, rows_of(made.folder), strict=True):
        assert len(new) == OLD + NEW
        assert torch.equal(bits(new)[:OLD], bits(old)[:OLD])
    assert divergences_fall(made.facts["calibration"])
    table = pq.read_table(made.folder / "sources.parquet")
    assert table["source_id"].to_pylist() == [*range(OLD), *[None] * NEW]
    assert made.facts["rows"]["copied"] == OLD
    assert new_rows(made.folder).tolist() == [False] * OLD + [True] * NEW
    rows_and_buffers = {id(p) for p in parameters}
    kept = dict(causal_lm.load(made.folder).named_parameters())
    for name, parameter in source.named_parameters():
        assert id(parameter) in rows_and_buffers or torch.equal(bits(parameter), bits(kept[name]))
    tokens = Pipeline(config).open("tokens")
    assert tokens.facts["end_of_text"] == source_tokenizer().eos_token_id


def divergences_fall(found):
    return len(found) >= 2 and min(found[1:]) < found[0]


def source_tokenizer():
    return causal_lm.load_with_tokenizer("package:english-nano")[1]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("train.precision=fp16", "train.grad_clip=0.5"),
        ("runtime.micro_batch_size=1",),
        pytest.param(("train.optimizer=muon",), marks=needs_muon),
        ("untied",),
        ("biased",),
        ("tokenizer={vocab_size: 330}",),  # `retrain`: the rows that alignment did not copy
    ],
)
def test_a_phase_of_new_rows_moves_nothing_else(overrides, tmp_path, settings):
    if settings in (("untied",), ("biased",)):
        settings = (f"align.base={base_of(*settings, tmp_path / 'base')}",)
    folder = build(overrides, *settings)
    pipeline = Pipeline(load_config(None, (*overrides, *settings)))
    is_new_V = torch.from_numpy(new_rows(pipeline.folder("align")))
    before, after = (causal_lm.load(folder / f"phases/{n}") for n in ("1-all", "2-new"))
    rows = {id(parameter) for parameter in causal_lm.row_parameters(after)}
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        if id(new) in rows:
            assert torch.equal(bits(old)[~is_new_V], bits(new)[~is_new_V])
            moved = (old != new).flatten(1).any(1) if new.ndim > 1 else old != new
            assert torch.equal(moved, is_new_V)
        else:
            assert torch.equal(bits(old), bits(new))
    counts = artifacts.read_manifest(folder).facts["trainable_parameters"]
    assert counts["all"] == causal_lm.count_parameters(after.parameters())
    assert counts["new"] == sum(p[is_new_V].numel() for p in causal_lm.row_parameters(after))


def test_a_phase_of_new_rows_equals_a_loop_that_has_only_those_as_parameters(overrides):
    settings = (*overrides, NO_DROPOUT, "runtime.micro_batch_size=8", phases(NEW_ROWS))
    Pipeline(config := load_config(None, settings)).build("align", init_world(config.runtime))
    learn, groups, config = prepared(settings)
    twin, _, _ = prepared(settings)
    phase, is_new_V = config.train.phases[0], np.arange(OLD + NEW) >= OLD
    learn.add_cb(Recorder())
    training.fit_phase(
        learn, phase, config.train, [trainable_part(phase, learn.model, groups, is_new_V)]
    )
    rates, moments = learn.recorder.hps["lr"], learn.recorder.hps["mom"]
    twin.loss_func.release()
    model, section = twin.model, config.train
    weight = model.get_input_embeddings().weight.detach()
    new = weight[OLD:].clone().requires_grad_()
    optimizer = torch.optim.AdamW([new], eps=section.eps, weight_decay=section.weight_decay)
    for (inputs_BT, targets_BT), rate, moment in zip(twin.dls.train, rates, moments, strict=True):
        optimizer.param_groups[0] |= {"lr": rate, "betas": (moment, section.beta2)}
        whole = torch.cat([weight[:OLD], new])
        logits_BTV = torch.func.functional_call(
            model, {"transformer.wte.weight": whole, "lm_head.weight": whole}, (inputs_BT,)
        ).logits
        optimizer.zero_grad()
        cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten()).backward()
        optimizer.step()
    assert learning_rates(phase)[-1] == phase.lr_max
    trained = learn.model.get_input_embeddings().weight
    torch.testing.assert_close(trained[OLD:], new, atol=1e-6, rtol=1e-5)
    assert trained not in learn.opt.opt.state  # old and new rows start the next phase alike


@pytest.mark.parametrize("number", [5, 17])  # 16 passes of the phase, then validation
def test_a_phase_of_new_rows_resumes_to_the_byte(overrides, tmp_path, monkeypatch, number):
    straight = build(elsewhere(overrides, tmp_path / "straight"))
    real = training.fit_phase

    def fit(learn, phase, section, cbs):
        stop = [StopAt(number, RuntimeError("cut"))] if phase.name == "new" else []
        real(learn, phase, section, [*cbs, *stop])

    monkeypatch.setattr(training, "fit_phase", fit)
    with pytest.raises(RuntimeError, match="cut"):
        build(overrides, OFTEN)
    monkeypatch.setattr(training, "fit_phase", real)
    resumed = build(overrides)
    for name in ("epochs.csv", "steps.csv", "model/model.safetensors"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()


def test_two_processes_equal_one_across_unfreezing_and_new_rows(overrides, tmp_path):
    both = (*overrides, NO_DROPOUT, "train.valid_tokens=448", phases(EMBEDDINGS, ALL, NEW_ROWS))
    # each process accumulates twice; 7 validation batches split unevenly
    process = torchrun((*both, "runtime.micro_batch_size=2"))
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert output.count("| after ... epochs |") == 1  # only one process prints
    alone = build(elsewhere(both, tmp_path / "alone"))
    assert alone.name == trained(both).name
    assert artifacts.open_artifact(trained(both)).facts["processes"] == 2
    assert_equal(trained(both), alone)
    before, after = (rows_of(trained(both) / f"phases/{n}")[0] for n in ("2-all", "3-new"))
    assert torch.equal(bits(before)[:OLD], bits(after)[:OLD])


def test_a_phase_without_new_rows_is_an_error_before_training():
    model = causal_lm.load(asset_path("english-nano"))
    phase = PhaseConfig(name="x", epochs=1, trainable="new_rows", trainable_groups=1, lr_max=1.0)
    groups = causal_lm.parameter_groups(model)
    some = trainable_part(phase, model, groups, np.arange(OLD) > 5)
    assert isinstance(some, TrainableRows)
    with pytest.raises(UserError, match="phase x: trainable: new_rows has none"):
        trainable_part(phase, model, groups, np.zeros(OLD, bool))


def test_the_whole_pipeline_adds_tokens_and_its_card_counts_them(overrides, capsys, tmp_path):
    settings = (*overrides, "align.base=package:english-nano", "export.formats=[gguf-f32]")
    assert gpt_pt("export", *sets(settings)) == 0
    pipeline = Pipeline(load_config(None, settings))
    folder = pipeline.folder("export")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"with {OLD + NEW:,} tokens: the {OLD:,} of `english-nano`, with their ids" in card
    assert f"and {NEW} added ones" in card
    assert f"modelo base com {NEW} *tokens* novos" in card
    assert "trainable: new_rows" in card
    facts = pipeline.open("tokenizer").facts
    assert (facts["vocab_size"], facts["base_vocab_size"]) == (OLD + NEW, OLD)
    bpe, source = AutoTokenizer.from_pretrained(folder), source_tokenizer()
    assert source.get_vocab().items() <= bpe.get_vocab().items()
    assert len(bpe("o rio corre para o mar")["input_ids"]) < len(
        source("o rio corre para o mar")["input_ids"]
    )
    capsys.readouterr()
    assert gpt_pt("generate", str(folder), "o rio", "--max-new-tokens", "4") == 0
    assert capsys.readouterr().out.startswith("o rio")


def test_a_vocabulary_that_is_too_small_is_an_error_before_anything_is_built(
    overrides, tmp_path, capsys
):
    new = ("align.base=package:english-nano", f"runtime.artifacts_dir={tmp_path}/x")
    assert gpt_pt("train", *sets((*overrides, *new, f"tokenizer.vocab_size={OLD}"))) == 2
    said = capsys.readouterr().err
    assert f"vocab_size={OLD} counts the {OLD} tokens that package:english-nano has" in said
    assert not (tmp_path / "x").exists()


def test_the_tokenizers_digest_covers_that_of_the_base_only_if_it_extends(overrides, tmp_path):
    other = f"align.base={base_of('tied', tmp_path / 'base')}"

    def digest(*more):
        return Pipeline(load_config(None, (*overrides, *more))).folder("tokenizer").name

    retrain = "tokenizer.method=retrain"
    assert digest(retrain) == digest(retrain, other) != digest()
    before = digest(other)
    assert before != digest()
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert digest(other) == before  # only the tokenizer counts
    path = tmp_path / "base" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert digest(other) != before


def test_extending_random_weights_and_new_rows_of_several_groups_are_config_errors(overrides):
    with pytest.raises(ConfigError, match="extend keeps the rows of a trained base"):
        load_config(None, (*overrides, "align.method=random"))
    with pytest.raises(ConfigError, match="changes all rows of the output head"):
        load_config(None, (*overrides, "align.head_tokens=9"))
    wrong = NEW_ROWS.replace("trainable_groups: 1", "trainable_groups: 2")
    with pytest.raises(ConfigError, match="new: trainable: new_rows .* set trainable_groups: 1"):
        load_config(None, (*overrides, phases(wrong)))
