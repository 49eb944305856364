"""`align.tie=untie`: the output head gets a matrix of its own, from the rows to every exported format."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gportuguese import Pipeline, causal_lm, init_world, load_config, plan, tokenizer, tying
from gportuguese.align import make_room, put_rows, rows
from gportuguese.align.calibration import calibrate
from gportuguese.base import ModelError
from gportuguese.callbacks import TrainableGroups
from gportuguese.config import FORMATS
from gportuguese.export import gguf
from gportuguese.generation import Writer
from gportuguese.optimizer import make_optimizer
from tests.conftest import tiny_settings
from tests.test_align import load_nano_tokenizer, token_batches, vocabularies  # noqa: F401
from tests.test_causal_lm import gpt2, llama
from tests.test_cli import gpt_pt
from tests.test_optimizer import needs_muon

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
TIED = {
    "gpt2": gpt2,
    "llama": lambda: llama(tied=True),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "head with bias": lambda: PhiForCausalLM(PhiConfig(**SHAPE)),
}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


class AlwaysTiedConfig(GPT2Config):
    model_type = "always-tied"


class AlwaysTied(GPT2LMHeadModel):
    """Ignores `tie_word_embeddings`."""

    config_class = AlwaysTiedConfig

    def tie_weights(self, *args, **kwargs):
        self.lm_head.weight = self.transformer.wte.weight


AutoModelForCausalLM.register(AlwaysTiedConfig, AlwaysTied)


def head_of(model):
    return model.get_output_embeddings().weight


def embeddings_of(model):
    return model.get_input_embeddings().weight


# the model


@pytest.mark.parametrize("kind", TIED)
def test_an_untied_model_predicts_the_same_and_stays_untied_when_reloaded(kind, tmp_path):
    model = TIED[kind]().eval()
    before, size = model(IDS).logits, causal_lm.count_parameters(model.parameters())
    assert tying.is_tied(model)
    tying.untie(model, kind)
    assert not tying.is_tied(model)
    assert torch.equal(model(IDS).logits, before)
    assert causal_lm.count_parameters(model.parameters()) == size + 64 * 16
    model.tie_weights()  # transformers calls this in several places
    with torch.no_grad():
        head_of(model).mul_(2)
    changed = model(IDS).logits
    assert not torch.equal(changed, before)
    causal_lm.save(model, tmp_path)
    for loaded in (AutoModelForCausalLM.from_pretrained(tmp_path), causal_lm.load(tmp_path)):
        assert torch.equal(loaded.eval()(IDS).logits, changed)
        assert torch.equal(embeddings_of(loaded), embeddings_of(model))
    assert torch.equal(head_of(loaded), 2 * embeddings_of(loaded))


def test_a_head_with_its_own_matrix_stays_as_it_is():
    model = llama()
    before = {name: id(p) for name, p in model.named_parameters()}
    tying.untie(model, "llama")
    assert {name: id(p) for name, p in model.named_parameters()} == before


def test_a_config_that_contradicts_its_weights_is_mended(tmp_path):
    """Older versions of transformers would tie the weights when they load them."""
    model = gpt2()
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 16))
    assert model.config.tie_word_embeddings
    tying.untie(model, "base")
    causal_lm.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(head_of(causal_lm.load(tmp_path)), head_of(model))


def test_an_architecture_that_always_ties_is_rejected():
    shape = {"vocab_size": 64, "n_embd": 16, "n_layer": 3, "n_head": 2}
    message = r"align.tie=untie: my-base is a AlwaysTied, which always .* set align.tie=keep"
    with pytest.raises(ModelError, match=message):
        tying.untie(AlwaysTied(AlwaysTiedConfig(**shape)), "my-base")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "head with bias"])
def test_both_matrices_get_the_rows_of_the_new_vocabulary(vocabularies, kind):  # noqa: F811
    tied, untied = TIED[kind](), TIED[kind]()
    for model in (tied, untied):
        model.resize_token_embeddings(len(vocabularies.source))
    untied.load_state_dict(tied.state_dict())
    tying.untie(untied, kind)
    fillers = [rows.copied(vocabularies.source_ids), rows.gaussian(vocabularies.shape[0], 0)]
    for model in (tied, untied):
        put_rows(model, make_room(model, vocabularies), fillers)
    assert not tying.is_tied(untied)
    assert torch.equal(head_of(untied), embeddings_of(untied))
    assert torch.equal(head_of(untied), embeddings_of(tied))
    assert torch.equal(untied.eval()(IDS).logits, tied.eval()(IDS).logits)


# training


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["adamw", pytest.param("muon", marks=needs_muon)])
def test_the_head_trains_in_the_last_group_as_the_embeddings_do(kind, name):
    model = TIED[kind]()
    tying.untie(model, kind)
    groups = causal_lm.parameter_groups(model)
    matrices = [embeddings_of(model), head_of(model)]
    assert all(any(p is matrix for p in groups.outside_blocks) for matrix in matrices)
    optimizer = make_optimizer(model, groups, load_config(None, (f"train.optimizer={name}",)).train)
    homes = [
        group
        for matrix in matrices
        for group in optimizer.param_groups
        if any(p is matrix for p in group["params"])
    ]
    assert len(homes) == 2
    assert homes[0] is homes[1]
    assert homes[0]["weight_decay"] > 0
    assert not homes[0].get("muon")
    TrainableGroups(groups, 1).before_fit()
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    torch.nn.functional.cross_entropy(model(IDS).logits[0, :-1], IDS[0, 1:]).backward()
    optimizer.step()
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    names = {key for key, p in model.named_parameters() if any(p is m for m in matrices)}
    assert names <= changed
    assert not any(".h." in key or ".layers." in key for key in changed)


# calibration


def test_calibrating_an_untied_head_reads_the_text_once_and_equals_the_slow_twin():
    def slow_twin(model, batches, frequencies_V):
        """As `calibrate`, but with a forward pass for each update."""
        for _ in range(2):
            with torch.no_grad():
                hidden_ND = torch.cat([model.model(ids)[0].flatten(0, 1) for ids, _ in batches])
                given_V = torch.softmax(hidden_ND @ head_of(model).T, 1).double().mean(0)
                mean_D = hidden_ND.mean(0).double()
                move_V = (frequencies_V / given_V).log()
                head_of(model).add_(torch.outer(move_V, mean_D / mean_D.square().sum()).float())

    torch.manual_seed(0)
    model, twin = llama(tied=True), llama()
    with torch.no_grad():  # gives the hidden states a large mean, as in trained models
        embeddings_of(model).add_(torch.randn(16))
    tying.untie(model, "llama")
    twin.load_state_dict(model.state_dict())
    embeddings = embeddings_of(model).detach().clone()
    counts_V, batches, passes = np.random.default_rng(1).integers(1, 50, 64), token_batches(), []
    model.model.register_forward_hook(lambda *_: passes.append(1))
    divergences = calibrate(model, batches, counts_V, np.zeros(64, bool))
    assert len(passes) == len(batches) + 1  # one to see whether the head comes last
    assert divergences[-1] < divergences[0] / 3
    slow_twin(twin.eval(), batches, torch.from_numpy(counts_V / counts_V.sum()))
    torch.testing.assert_close(head_of(model), head_of(twin))
    assert torch.equal(embeddings_of(model), embeddings)


# the stage


NANO = (
    "align.base=package:english-nano",
    "align.method=pieces",
    "tokens.block_size=32",
)


@pytest.fixture(scope="module")
def settings(tiny_dump, tmp_path_factory):
    """The settings of a tiny run; all tests here share its stages."""
    return tiny_settings(tiny_dump, tmp_path_factory.mktemp("run") / "artifacts")


def build(settings, stage, *more):
    config = load_config(None, (*settings, *more))
    pipeline = Pipeline(config)
    return pipeline, pipeline.build(stage, init_world(config.runtime))


def test_the_stage_unties_and_calibrates_the_head_alone(settings, caplog):
    caplog.set_level(logging.INFO, "gportuguese")
    _, tied = build(settings, "align", *NANO, "align.calibration_tokens=0")
    _, made = build(settings, "align", *NANO, "align.tie=untie", "align.calibration_tokens=2048")
    assert "the output head is untied and has 57,600 parameters of its own" in caplog.text
    assert tied.facts["untied_parameters"] == 0
    assert made.facts["untied_parameters"] == 300 * 192
    assert made.facts["parameters"] == tied.facts["parameters"] + 300 * 192
    model, plain = causal_lm.load(made.folder), causal_lm.load(tied.folder)
    assert not tying.is_tied(model)
    assert torch.equal(embeddings_of(model), embeddings_of(plain))
    moved = (head_of(model) != embeddings_of(model)).any(1)
    assert moved.all()  # those of bytes and digits too, because no input row moves with them
    assert made.facts["calibration"][-1] < made.facts["calibration"][0]


@pytest.mark.parametrize("method", ["auto", "random"])
def test_other_methods_untie_too(settings, method):
    _, made = build(settings, "align", *NANO, f"align.method={method}", "align.tie=untie")
    assert not tying.is_tied(causal_lm.load(made.folder))
    assert made.facts["untied_parameters"] == 300 * 192


def test_a_base_that_is_untied_already_is_accepted(settings, tmp_path, caplog):
    caplog.set_level(logging.INFO, "gportuguese")
    model = llama()
    model.resize_token_embeddings(len(load_nano_tokenizer()))
    causal_lm.save(model, tmp_path)
    load_nano_tokenizer().save_pretrained(tmp_path)
    facts, heads = {}, {}
    for tie in ("keep", "untie"):
        more = (*NANO, f"align.base={tmp_path}", f"align.tie={tie}", "align.calibration_tokens=0")
        _, made = build(settings, "align", *more)
        facts[tie], loaded = made.facts, causal_lm.load(made.folder)
        assert not tying.is_tied(loaded)
        heads[tie] = head_of(loaded)
    assert "the base's output head is untied already; calibration moves all its rows" in caplog.text
    assert facts["untie"]["untied_parameters"] == 0
    assert facts["untie"]["parameters"] == facts["keep"]["parameters"]
    assert torch.equal(heads["keep"], heads["untie"])


def test_keep_does_not_change_digests(settings):
    from gportuguese.stages import STAGES

    sections = [
        STAGES["align"].settings(load_config(None, (*settings, *more)))
        for more in ((), ("align.tie=keep",), ("align.tie=untie",))
    ]
    assert sections[0] == sections[1]
    assert "tie" not in sections[0]
    assert sections[2] == {**sections[0], "tie": "untie"}


# the plan


def test_the_plan_counts_the_head(settings):
    found = {}
    for tie in ("keep", "untie"):
        config = load_config(None, (*settings, "runtime.vocab_multiple=64", f"align.tie={tie}"))
        shape = plan.read_shape(config)
        step = plan.steps_of(config, "cpu")[0]
        found[tie] = plan.count_flops(config, shape, step), plan.count_memory(config, shape, step)
    (flops, memory), (untied_flops, untied_memory) = found["keep"], found["untie"]
    size = 300 * 16
    assert untied_flops.parameters == flops.parameters + size
    assert untied_flops.trainable_parameters == flops.trainable_parameters + size
    assert untied_flops.train == flops.train  # looking rows up takes no products
    assert untied_memory.weights == memory.weights + 4 * size
    assert untied_memory.optimizer_state == memory.optimizer_state + 2 * 4 * size + 4  # and a count


def test_the_plan_rejects_what_the_stage_would():
    shape = AlwaysTiedConfig(vocab_size=64, n_embd=16, n_layer=3, n_head=2)
    with pytest.raises(ModelError, match="is a AlwaysTied, which always"):
        tying.untie_config(shape, "my-base")


# export and use


@pytest.fixture(scope="module")
def exported(settings):
    """The exported folder of a tiny untied run, with every format."""
    return build(settings, "export", "align.tie=untie", f"export.formats=[{', '.join(FORMATS)}]")


def test_every_format_contains_the_untied_head(exported):
    pipeline, artifact = exported
    trained = causal_lm.load(pipeline.open("train").folder / "model").eval()
    assert not tying.is_tied(trained)
    assert not torch.equal(head_of(trained), embeddings_of(trained))
    ids_BT = torch.randint(300, (2, 16))
    for safe in (True, False):
        model = AutoModelForCausalLM.from_pretrained(artifact.folder, use_safetensors=safe).eval()
        assert torch.equal(model(ids_BT).logits, trained(ids_BT).logits)
    assert set(artifact.facts["differences"]) == {"safetensors", *FORMATS}
    for name in FORMATS:
        assert artifact.facts["differences"][name]["log_probability"] < 1e-2


def test_transformers_reads_the_untied_head_of_a_gguf_file(tmp_path):
    """It assumes 1024 positions, so this model has as many."""
    bpe = load_nano_tokenizer()
    shape = {"n_positions": 1024, "n_embd": 32, "n_layer": 3, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(bpe), **shape))
    tying.untie(model, "base")
    with torch.no_grad():
        head_of(model).mul_(2)
    tokenizer.save(bpe, tmp_path)
    gguf.write(model, tmp_path, tmp_path / "base.gguf", "f32")
    base, _ = causal_lm.load_with_tokenizer(str(tmp_path / "base.gguf"))
    assert not tying.is_tied(base)
    assert torch.equal(head_of(base), head_of(model))
    assert torch.equal(embeddings_of(base), embeddings_of(model))


def test_the_card_says_what_untying_costs_and_names_only_readers_that_can(exported):
    """KerasHub's GPT-2 always ties: it would drop the head."""
    text = (exported[1].folder / "README.md").read_text(encoding="utf-8")
    assert "was untied from the input embeddings, which adds 4,800 parameters" in text
    assert "KerasHub" not in text
    assert not re.search(r"\{[{%]|None|Undefined", text)


def test_generated_text_is_that_of_transformers(exported, capsys):
    folder = exported[1].folder
    writer = Writer.load(folder, "cpu")
    ids = writer.tokenizer("o rio", return_tensors="pt")["input_ids"]
    wanted = AutoModelForCausalLM.from_pretrained(folder).generate(
        ids, do_sample=False, max_new_tokens=8
    )
    gpt_pt("generate", str(folder), "o rio", "--max-new-tokens", "8", "--temperature", "0")
    assert capsys.readouterr().out.strip() == writer.tokenizer.decode(wanted[0]).strip()
