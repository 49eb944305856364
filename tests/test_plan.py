import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from gportuguese import Pipeline, causal_lm, learner, load_config, plan
from gportuguese.artifacts import Artifact
from gportuguese.callbacks import EpochOrder, TrainableGroups, TrainableRows
from gportuguese.config import asset_path
from gportuguese.loaders import Loaders
from gportuguese.loss import HeadLoss
from gportuguese.optimizer import make_optimizer
from gportuguese.plan.devices import DEVICES, GPT2_SMALL_FLOPS
from gportuguese.plan.fits import remedy
from gportuguese.plan.memory import Ledger, count_model_memory
from gportuguese.plan.shape import make_model
from gportuguese.plan.text import plan_text
from gportuguese.tokenizer import TokenizerError
from gportuguese.tokens import BlockLoader
from gportuguese.world import init_world
from tests.test_cli import gpt_pt
from tests.test_optimizer import needs_muon

SMALL = (
    "align={base: {layers: 3, width: 32, heads: 2, positions: 64}, method: random}",
    "tokenizer.vocab_size=300",
    "tokens.block_size=32",
    "runtime.device=cpu",
    "runtime.micro_batch_size=4",
    "train.global_batch_size=4",
)
WEIGHTS = 300 * 32 + 64 * 32 + 3 * (12 * 32**2 + 13 * 32) + 2 * 32


def step_and_shape(*overrides, device="cpu", index=-1, **changes):
    """Config and shape of the small model, and the last phase's step or another."""
    config = load_config(None, (*SMALL, *overrides))
    step = replace(plan.steps_of(config, device)[index], **changes)
    return config, plan.read_shape(config), step


def flops_of(*overrides, **changes):
    return plan.count_flops(*step_and_shape(*overrides, **changes))


def memory_of(*overrides, **changes):
    return plan.count_memory(*step_and_shape(*overrides, **changes))


def gpt2_flops(layers, width, vocab, block, trained):
    """Forward and in all per token: two FLOPs for each weight of a product and each score or value.

    A backward pass does the forward pass's work once for the gradients of inputs, which reach the
    embeddings past frozen blocks too, and once for those of weights that train. Attention has two
    products without weights in the forward pass and four in the backward pass.
    """
    blocks, head, attention = layers * 12 * width**2, vocab * width, 2 * layers * block * width
    forward = 2 * (blocks + head) + 2 * attention
    weight_gradients = 2 * (trained * 12 * width**2 + head)
    return forward, 2 * (blocks + head) + weight_gradients + 4 * attention + forward


def measured_flops(model, config, step):
    """FLOPs of a real step by PyTorch's count of its operators; and those of a forward pass alone."""
    groups = causal_lm.parameter_groups(model)
    for group in groups[: -step.trainable_groups]:
        for parameter in group:
            parameter.requires_grad_(False)
    if step.activation_checkpointing:
        causal_lm.checkpoint_activations(causal_lm.block_list(model))
    loss = HeadLoss(model, chunk_rows=step.loss_rows, vocab_multiple=step.vocab_multiple)
    ids_BT = torch.zeros((step.micro_batch_size, step.block_size), dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        loss(model(ids_BT).logits, ids_BT)
    with FlopCounterMode(display=False) as both:
        loss(model(ids_BT).logits, ids_BT).backward()
    optimizer = make_optimizer(model, groups, config.train)
    with FlopCounterMode(display=False) as update:
        optimizer.step()
    tokens = ids_BT.numel()
    train, first = both.get_total_flops() / tokens, forward.get_total_flops() / tokens
    return train, first, update.get_total_flops()


@pytest.mark.parametrize("index", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("runtime.activation_checkpointing=true",),
        ("runtime.vocab_multiple=64",),
        ("align.tie=untie",),
        pytest.param(("train.optimizer=muon",), marks=needs_muon),
    ],
)
def test_flops_are_those_of_a_real_step_in_every_phase(overrides, index):
    base = "align.base={layers: 4, width: 32, heads: 2, positions: 64}"
    config, shape, step = step_and_shape(base, *overrides, index=index)
    found = plan.count_flops(config, shape, step)
    # eager attention: PyTorch has no formula for the CPU's fused kernel
    shape._attn_implementation = "eager"
    model = make_model(shape).train()
    assert (found.train, found.forward, found.update) == measured_flops(model, config, step)
    if not overrides:
        forward, train = gpt2_flops(4, 32, 300, 32, (0, 1, 2, 4)[index])
        assert (found.forward, found.train) == (forward, train)


def test_gpt2_small_takes_the_flops_that_shares_are_reckoned_with():
    config = load_config(None, ("align.base=gpt2", "tokenizer.vocab_size=50257"))
    step = replace(plan.steps_of(config, "cuda")[-1], block_size=1024, micro_batch_size=1)
    found = plan.count_flops(config, plan.read_shape(config), step)
    assert found.train == GPT2_SMALL_FLOPS == gpt2_flops(12, 768, 50257, 1024, 12)[1]
    assert found.parameters == 124_439_808
    # what was published: GPorTuguese-2 reached about 10 % of a V100's peak, nanoGPT 30 % of an A100's
    shares = {device.name: device.share for device in DEVICES}
    assert shares["V100"] == pytest.approx(0.095, abs=0.005)
    assert shares["A100"] == pytest.approx(0.30, abs=0.005)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [{}, {"passes": 2, "trainable_groups": 2}, {"new_rows": 90}])
@pytest.mark.parametrize("tie", ["keep", "untie"])
def test_fake_tensors_take_what_real_ones_take(precision, changes, tie):
    config = load_config(None, (*SMALL, f"train.precision={precision}", f"align.tie={tie}"))
    shape = plan.read_shape(config)
    step = replace(plan.steps_of(config, "cpu")[-1], **changes)
    real = count_model_memory(make_model(shape).train(), config, step, head_is_last=True)
    assert real == plan.count_memory(config, shape, step)


@pytest.mark.parametrize(
    ("checkpointing", "new_rows"), [("false", None), ("true", None), ("false", 90)]
)
def test_the_learners_own_steps_peak_where_the_plan_says(checkpointing, new_rows):
    config = load_config(
        None,
        (
            *SMALL,
            "train.global_batch_size=8",
            "train.dropout=0.0",
            f"runtime.activation_checkpointing={checkpointing}",
        ),
    )
    shape, section = plan.read_shape(config), config.train
    ids = np.random.default_rng(0).integers(0, 300, 3 * 8 * 32 + 1)
    loader = BlockLoader(ids, 32, 4, seed=0, multiple=8)
    model = make_model(shape)
    ledger = Ledger()
    ledger.enter(*model.parameters())
    loaders = Loaders(loader, loader, torch.device("cpu"))
    learn = learner.make_phase_learner(model, loaders, config, init_world(config.runtime))
    groups = causal_lm.parameter_groups(model)
    part = TrainableGroups(groups, 4)
    if new_rows:
        is_new_V = torch.arange(300) < new_rows
        part = TrainableRows(groups, causal_lm.row_parameters(model), is_new_V)
    with ledger:
        learner.fit_phase(learn, section.phases[-1], section, [part, EpochOrder(0)])
    step = replace(plan.steps_of(config, "cpu")[-1], new_rows=new_rows)
    planned = plan.count_memory(config, shape, step).peak_bytes
    assert ledger.peak == pytest.approx(planned, rel=0.02)


def test_parts_are_what_they_are_called():
    for index, trained in enumerate((0, 1, 2, 3)):
        overrides = {"index": index, "passes": 2}
        flops = flops_of("train.precision=bf16", **overrides)
        found = memory_of("train.precision=bf16", **overrides)
        parameters = WEIGHTS - (3 - trained) * (12 * 32**2 + 13 * 32)
        assert flops.parameters == WEIGHTS
        assert flops.trainable_parameters == parameters
        assert found.weights == 4 * WEIGHTS
        tensors = 12 * trained + 4
        assert found.optimizer_state == 8 * parameters + 4 * tensors
        copies = 2 * (trained * 12 * 32**2 + 300 * 32)
        assert found.rest > 4 * parameters + copies
        assert found.peak_bytes == found.weights + found.optimizer_state + found.rest


@needs_muon
def test_muon_keeps_one_moment_of_a_matrix_and_its_products_count():
    plain, muon = (memory_of(f"train.optimizer={name}") for name in ("adamw", "muon"))
    matrices = 3 * 12 * 32**2
    steps = 3 * 4 * 4  # AdamW counts the steps of each tensor in four bytes
    assert plain.optimizer_state - muon.optimizer_state == 4 * matrices + steps
    plain, muon = (flops_of(f"train.optimizer={name}") for name in ("adamw", "muon"))
    assert plain.update == 0
    # five times A = XX', A + AA, X + AX; X has 32 rows and 96, 32, 128 or, transposed, 128 columns
    assert muon.update == 3 * 5 * sum(4 * 32**2 * n + 2 * 32**3 for n in (96, 32, 128, 128))
    assert muon.train == plain.train


@needs_muon
def test_muon_is_not_planned_where_there_is_no_bf16():
    config = load_config(None, (*SMALL, "train={optimizer: muon, precision: fp16}"))
    made = plan.make_plan(config, assumed_tokens=10_000, measure=False)
    notes = {cost.device: (cost.hours, cost.note) for cost in made.costs}
    assert notes["V100"] == (None, "has no bf16, in which Muon computes; set train.optimizer=adamw")
    assert notes["A100"][0] > 0


def test_a_phase_of_new_rows_counts_the_rows_that_an_extension_adds():
    phases = (
        "train.phases=[{name: rows, epochs: 1, trainable: new_rows, trainable_groups: 1, "
        "lr_max: 0.1}, {name: all, epochs: 1, trainable_groups: 4, lr_max: 0.1}]"
    )
    base = "align={base: package:english-nano}"

    def made(*more):
        config = load_config(None, (base, phases, "tokens.block_size=32", *more))
        return plan.make_plan(config, assumed_tokens=10_000, measure=False)

    extended = made("tokenizer={method: extend, vocab_size: 5000}")
    assert extended.new_rows == 5000 - 4096
    width = json.loads((asset_path("english-nano") / "config.json").read_text())["n_embd"]
    rows, everything = (phase.trainable_parameters for phase in extended.phases)
    assert rows == (5000 - 4096) * width
    assert everything == extended.phases[0].parameters
    assert f" {rows:,} " in plan_text(extended)
    unknown = made("tokenizer={vocab_size: 5000}")  # how many tokens both have is not known yet
    assert unknown.new_rows is None
    assert f"<= {5000 * width:,} " in plan_text(unknown)
    with pytest.raises(TokenizerError, match="counts the 4096 tokens"):
        made("tokenizer={method: extend, vocab_size: 4096}")


def test_memory_is_that_of_the_phase_that_trains_most():
    phases = (
        "train.phases=[{name: a, epochs: 1, trainable_groups: 4, lr_max: 0.1}, "
        "{name: b, epochs: 1, trainable_groups: 1, lr_max: 0.1}]"
    )
    config = load_config(None, (*SMALL, phases))
    made = plan.make_plan(config, assumed_tokens=10_000, measure=False)
    first, second = (memory_of(phases, device="cuda", index=index) for index in (0, 1))
    assert made.memory["cuda"] == first
    # the second keeps the moments of the first
    assert first.peak_bytes > second.weights + first.optimizer_state + second.rest


def test_the_cpu_keeps_scores_where_dropout_is_and_cuda_does_not():
    def activations(device, block_size, dropout, precision="bf16"):
        base = f"align.base={{layers: 3, width: 32, heads: 2, positions: 64, dropout: {dropout}}}"
        one, two = (
            memory_of(
                base,
                f"train.precision={precision}",
                device=device,
                block_size=block_size,
                micro_batch_size=size,
            )
            for size in (8, 16)
        )
        return two.peak_bytes - one.peak_bytes  # of eight sequences, without what does not grow

    for device, dropout, precision in (
        ("cuda", 0.1, "bf16"),
        ("cpu", 0.0, "fp32"),
    ):
        one, two = (activations(device, n, dropout, precision) for n in (32, 64))
        assert two == pytest.approx(2 * one, rel=0.02)
    # scores after softmax, mask and product, in float32, of 8 sequences, 2 heads and 3 layers
    quadratic = activations("cpu", 64, 0.1) - 2 * activations("cpu", 32, 0.1)
    assert quadratic == pytest.approx(3 * 8 * 2 * 3 * 4 * (64**2 - 2 * 32**2), rel=0.15)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_checkpointing_trades_flops_for_memory(device):
    changes = [{"device": device, "activation_checkpointing": on} for on in (False, True)]
    plain, again = (flops_of(**each) for each in changes)
    assert again.train - plain.train == 2 * 3 * 12 * 32**2 + 4 * 3 * 32 * 32
    plain, again = (memory_of(**each) for each in changes)
    assert again.rest < 0.6 * plain.rest
    assert again.peak_bytes < 0.8 * plain.peak_bytes


def test_logits_are_those_of_a_chunk():
    def growth(device):
        many, few = (
            memory_of("train.precision=bf16", device=device, loss_rows=n, micro_batch_size=8)
            for n in (256, 32)
        )
        return many.rest - few.rest

    # in 16 bits, and in float32 before and after the softmax
    assert growth("cuda") == pytest.approx((256 - 32) * 300 * (2 + 4 + 4), rel=0.1)
    # a run of the CPU takes 32 rows at a time to the exponentials
    assert (256 - 32) * 300 * 2 < growth("cpu") < (256 - 32) * 300 * 3


def test_processes_share_a_step_and_keep_buckets():
    config = load_config(None, (*SMALL, "train.global_batch_size=16"))
    steps = plan.steps_of(config, "cuda", processes=2)
    assert [step.passes for step in steps] == [2, 2, 2, 2]
    alone = memory_of(device="cuda", passes=2)
    shared = memory_of(device="cuda", passes=2, processes=2)
    assert shared.rest == alone.rest + 4 * WEIGHTS


def test_other_decoders_are_counted():
    config = load_config(None, SMALL)
    shape = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    for device in ("cpu", "cuda"):
        step = replace(plan.steps_of(config, device)[-1], precision="bf16")
        weights = 3 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 48) + 300 * 32
        assert plan.count_flops(config, shape, step).train == 6 * weights + 12 * 3 * 32 * 32
        assert plan.count_memory(config, shape, step).weights == 4 * (
            weights + 300 * 32 + 7 * 32  # embeddings that are not the head, and norms
        )
    shape._attn_implementation = "eager"
    step = replace(step, precision="fp32")
    model = make_model(shape).train()
    assert plan.count_flops(config, shape, step).train == measured_flops(model, config, step)[0]


@pytest.mark.parametrize("epoch_tokens", [None, 5000, 100_000])
@pytest.mark.parametrize("corpus_tokens", [1_000, 4_096, 9_999])
def test_tokens_are_those_of_the_loader(epoch_tokens, corpus_tokens):
    config = load_config(
        None, (*SMALL, f"train.epoch_tokens={epoch_tokens or 'null'}", "train.valid_tokens=500")
    )
    facts = {"tokens": {"train": corpus_tokens, "valid": 700}}
    tokens = Artifact(Path("tokens-0"), {"digest": "0", "facts": facts})
    blocks = None if epoch_tokens is None else epoch_tokens // 32
    loader = BlockLoader(np.zeros(corpus_tokens), 32, 4, seed=0, num_blocks=blocks, multiple=4)
    valid = BlockLoader(np.zeros(700), 32, 4, num_blocks=500 // 32)
    schedule = plan.make_schedule(config, tokens, None)
    assert schedule.epoch_tokens == loader.epoch_blocks * 32
    assert schedule.valid_tokens == valid.epoch_blocks * 32
    assert schedule.steps == 5 * loader.epoch_blocks // 4
    assert schedule.tokens == 5 * schedule.epoch_tokens


def test_a_remedy_fits_and_takes_the_largest_micro_batch():
    config = load_config(None, (*SMALL, "tokens.block_size=64", "train.global_batch_size=8"))
    shape = plan.read_shape(config)
    step = replace(plan.steps_of(config, "cuda")[-1], micro_batch_size=8, passes=1)
    tried = {}

    def peak_of(step):
        if step not in tried:
            tried[step] = plan.count_memory(config, shape, step).peak_bytes
        return tried[step]

    def remedy_within(capacity):
        return remedy(step, lambda step: peak_of(step) <= capacity)

    peaks = {n: peak_of(replace(step, micro_batch_size=n, passes=8 // n)) for n in (1, 2, 4, 8)}
    assert peaks[1] < peaks[2] < peaks[4] < peaks[8]
    for size in (1, 2, 4):
        assert remedy_within(peaks[size]) == {"micro_batch_size": size}
        assert remedy_within(peaks[2 * size] - 1) == {"micro_batch_size": size}
    assert remedy_within(peaks[8]) == {}
    again = replace(step, activation_checkpointing=True)
    capacity = peak_of(replace(again, micro_batch_size=1, passes=8))
    assert capacity < peaks[1]
    assert remedy_within(capacity) == {"micro_batch_size": 1, "activation_checkpointing": True}
    assert remedy_within(capacity - 1) is None


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("openai-community/gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("distilgpt2", 81_912_576),
    ],
)
def test_the_family_is_known_without_the_hub(base, parameters):
    config = load_config(None, (f"align.base={base}", "tokenizer.vocab_size=50257"))
    with torch.device("meta"):
        model = make_model(plan.read_shape(config))
    model.tie_weights()
    assert causal_lm.count_parameters(model.parameters()) == parameters


def test_a_folder_is_read_without_its_weights(tmp_path):
    shutil.copy(asset_path("english-nano") / "config.json", tmp_path)
    shape = plan.read_shape(load_config(None, (f"align.base={tmp_path}",)))
    assert (shape.n_layer, shape.n_embd, shape.vocab_size) == (4, 192, 4096)


def test_a_config_in_the_hubs_cache_is_enough(tmp_path, monkeypatch):
    path = str(shutil.copy(asset_path("english-nano") / "config.json", tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: path)
    shape = plan.read_shape(load_config(None, ("align.base=some-owner/some-model",)))
    assert shape.n_layer == 4


def test_the_cpu_is_measured():
    config = load_config(None, SMALL)
    shape, step = plan.read_shape(config), plan.steps_of(config, "cpu")[-1]
    speed = plan.measure_cpu(config, shape, step)
    assert speed.product_flops > 1e9
    seconds = plan.cpu_step_seconds(speed, step, shape)
    assert 0 < seconds < 1
    more = plan.cpu_step_seconds(speed, replace(step, passes=5), shape)
    assert seconds < more < 5.001 * seconds


ONE_PHASE = "train.phases=[{name: all, epochs: 2, trainable_groups: 4, lr_max: 0.001}]"
WORDS = [word for setting in (*SMALL, ONE_PHASE) for word in ("--set", setting)]


def test_the_command_prints_and_builds_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "--tokens", "1_000_000"]
    assert gpt_pt("plan", *words) == 0
    out = capsys.readouterr().out
    assert "999,936 tokens an epoch (assumed by --tokens)" in out
    assert "not counted" not in out
    assert "fits: T4, 15 GB; V100, 16 GB; " in out
    assert "this CPU" in out
    assert gpt_pt("plan", *words, "--json", "--no-measure") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["schedule"]["epoch_tokens"] == 999_936
    assert made["phases"][0]["parameters"] == WEIGHTS
    costs = {cost["device"]: cost for cost in made["costs"]}
    for device in DEVICES:
        hours = made["flops"] / device.flops_per_second("fp32") / 3600
        assert costs[device.name]["hours"] == pytest.approx(hours)
        assert costs[device.name]["usd"] == pytest.approx(device.usd_per_hour * hours)
    words += ["--set", "runtime.micro_batch_size=2", "--json", "--no-measure"]
    assert gpt_pt("plan", *words, "--processes", "2") == 0
    shared = {cost["device"]: cost for cost in json.loads(capsys.readouterr().out)["costs"]}
    assert shared["A100"]["hours"] == pytest.approx(costs["A100"]["hours"] / 2)
    assert shared["A100"]["usd"] == pytest.approx(costs["A100"]["usd"])
    train = sum(
        phase["tokens"] * count["train"] + phase["steps"] * count["update"]
        for phase, count in zip(made["schedule"]["phases"], made["phases"], strict=True)
    )
    validation = made["schedule"]["validations"] * made["schedule"]["valid_tokens"]
    assert made["flops"] == pytest.approx(train + validation * made["phases"][0]["forward"])
    assert not list(tmp_path.iterdir())


def test_the_plan_names_the_shipped_config_of_each_card(capsys):
    shipped = {path.stem for path in Path(__file__).parents[1].joinpath("configs").iterdir()}
    assert {device.config for device in DEVICES} <= shipped
    assert gpt_pt("plan", *WORDS, "--tokens", "1_000_000", "--no-measure") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    named = {row[0]: row[3] for row in rows if row and row[0] in {each.name for each in DEVICES}}
    assert named == {each.name: each.config for each in DEVICES}
    assert named["T4"] == "t4"
    assert named["H200"] == "h100"


def test_cards_that_lack_the_precision_do_not_fit(capsys):
    words = [*WORDS, "--tokens", "1_000_000", "--no-measure", "--set", "train.precision=bf16"]
    assert gpt_pt("plan", *words) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("fits: ")]
    assert line == "fits: A100, 40 GB; A100, 80 GB; H100, 80 GB; H200, 141 GB; RTX4090, 24 GB"


def test_the_packaged_dump_is_counted_as_the_demo_tokenizes_it(tmp_path):
    config = load_config(None, (f"runtime.artifacts_dir={tmp_path}", "train.epoch_tokens=null"))
    planned = plan.make_schedule(config, None, None)
    tokens = Pipeline(config).build("tokens", init_world(config.runtime))
    assert planned.epoch_tokens == plan.make_schedule(config, tokens, None).epoch_tokens
    assert "the corpus is not built" in planned.source


def test_a_t4_has_no_bf16():
    device = next(each for each in DEVICES if each.name == "T4")
    assert "bf16" not in device.peaks
    assert device.flops_per_second("fp32") == pytest.approx(0.5 * 8.1e12)


def test_an_epoch_that_is_set_is_taken_whatever_the_corpus_holds(capsys):
    words = [*WORDS, "--set", "train.epoch_tokens=100_000", "--tokens", "1_000_000"]
    words += ["--set", "train.valid_tokens=null", "--set", "runtime.tf32=true", "--no-measure"]
    assert gpt_pt("plan", *words) == 0
    out = capsys.readouterr().out
    assert "99,968 tokens an epoch (train.epoch_tokens, of 1,000,000 assumed by --tokens)" in out
    assert "the speed-up of runtime.tf32 is not counted" in out
    assert gpt_pt("plan", *words, "--json") == 0
    schedule = json.loads(capsys.readouterr().out)["schedule"]
    assert schedule["valid_tokens"] == 150_000 // 32 * 32  # 120 : 800 per mille


def test_a_step_that_computes_blocks_again_is_measured_too(capsys):
    words = [*WORDS, "--tokens", "1_000_000", "--json"]
    hours = {}
    for again in ("false", "true"):
        option = f"runtime.activation_checkpointing={again}"
        assert gpt_pt("plan", *words, "--set", option) == 0
        costs = json.loads(capsys.readouterr().out)["costs"]
        hours[again] = costs[-1]["hours"]
        assert costs[-1]["device"] == "this CPU"
    assert hours["true"] > 0


@pytest.mark.usefixtures("built_stages")
def test_a_finished_corpus_is_counted(tiny_overrides, capsys):
    words = [word for setting in tiny_overrides for word in ("--set", setting)]
    words += ["--set", "train.epoch_tokens=null", "--set", ONE_PHASE]
    assert gpt_pt("tokens", *words) == 0
    folder = capsys.readouterr().out.strip()
    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    assert gpt_pt("plan", *words, "--no-measure") == 0
    steps = (manifest["facts"]["tokens"]["train"] - 1) // 32 // 8
    assert f"{steps * 8 * 32:,} tokens an epoch (counted in {folder})" in capsys.readouterr().out


def test_cards_that_are_too_small_come_with_a_remedy_and_those_without_bf16_are_left_out(capsys):
    settings = (
        "tokenizer.vocab_size=400_000",
        "tokens.block_size=64",
        "train.precision=bf16",
        "train.global_batch_size=128",
        "runtime.micro_batch_size=128",
        "runtime.loss_rows=8192",
    )
    words = [*WORDS, *(word for setting in settings for word in ("--set", setting))]
    assert gpt_pt("plan", *words, "--tokens", "10_000_000", "--no-measure") == 0
    out = capsys.readouterr().out
    assert re.search(
        r"RTX4090, 24 GB: needs 3\d\.\d GB, does not fit; fits with "
        r"--set runtime.micro_batch_size=64\n",
        out,
    )
    assert re.search(r"this machine, \d+ GB, [\d.]+ GB free now: needs [\d.]+ GB, ", out)
    assert "fits: A100, 40 GB; A100, 80 GB; H100, 80 GB; H200, 141 GB" in out
    assert "has no bf16; set train.precision=fp16" in out
    assert "T4, 15 GB" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "dump={wiki: eswiki}"), "the corpus is not built"),
        (("--tokens", "0"), "--tokens 0: must be at least 1"),
        (("--tokens", "100"), "do not fill one optimizer step of 4 x 32 tokens"),
        (("--tokens", "9999", "--processes", "3"), "does not divide by 3 x runtime.micro_batch"),
        (("--tokens", "9999", "--processes", "0"), "--processes 0"),
        (
            ("--tokens", "9999", "--set", "align={base: owner/model, method: mean}"),
            "hf download owner/model config.json",
        ),
        (
            ("--tokens", "9999", "--set", "align={base: ./nowhere, method: mean}"),
            "no base model at nowhere",
        ),
        (
            (
                "--tokens",
                "999999",
                "--set",
                "align={base: distilgpt2, method: mean}",
                "--set",
                "tokens.block_size=2048",
            ),
            "above the 1024 positions of distilgpt2",
        ),
    ],
)
def test_what_cannot_be_planned_is_said(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gpt_pt("plan", *WORDS, "--no-measure", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_folder_without_a_config_is_said(tmp_path):
    with pytest.raises(causal_lm.ModelError, match="no model config can be read"):
        plan.read_shape(load_config(None, (f"align.base={tmp_path}",)))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_takes_what_is_counted(precision):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    base = "align.base={layers: 6, width: 512, heads: 8, positions: 512}"
    settings = (
        *SMALL,
        base,
        "runtime.device=cuda",
        "tokens.block_size=512",
        "tokenizer.vocab_size=8192",
    )
    config = load_config(None, (*settings, f"train.precision={precision}"))
    shape, step = plan.read_shape(config), plan.steps_of(config, "cuda")[-1]
    model = make_model(shape)
    learner.prepare_model(model.train(), config, init_world(config.runtime))
    loss = HeadLoss(model)
    optimizer = make_optimizer(model, causal_lm.parameter_groups(model), config.train)
    ids_BT = torch.zeros((4, 512), dtype=torch.int64, device="cuda")
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.float16, enabled=precision == "fp16"):
            mean = loss(model(ids_BT).logits, ids_BT)
        mean.backward()
        optimizer.step()
        optimizer.zero_grad()
    measured = torch.cuda.max_memory_allocated()
    planned = plan.count_memory(config, shape, step).peak_bytes
    assert planned == pytest.approx(measured, rel=0.05)
