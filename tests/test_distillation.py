"""Learning rows: pairs of tokens against a slow search, the head fit against a slow twin, and what moves."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import causal_lm, load_config, plan, tying
from gportuguese.align import distillation, head_fit, make_room, pieces, put_rows, rows
from gportuguese.align.distillation import Windows, common_ends, distill, hidden_after, schedule
from gportuguese.align.head_fit import fit_head
from gportuguese.align.resources import Resources
from gportuguese.align.rows import Vocabularies
from gportuguese.align.saved_state import SavedState
from gportuguese.artifacts import Artifact
from gportuguese.base import ModelError
from gportuguese.config import AlignConfig, ConfigError
from gportuguese.tokens import BlockLoader, joined_ids
from tests.conftest import sentence, tiny_settings
from tests.test_align import byte_tokenizer
from tests.test_causal_lm import gpt2, llama
from tests.test_tying import NANO, build

SIZES = st.lists(st.integers(1, 5), max_size=30).map(np.array)
OLD, NEW = byte_tokenizer(["there", "mar"]), byte_tokenizer([sentence(s, 9) for s in range(9)], 40)
END = NEW.eos_token_id


@given(SIZES, SIZES)
def test_common_ends_equal_the_slow_search(source, target):
    source_ends, target_ends = source.cumsum().tolist(), target.cumsum().tolist()
    slow = [(source_ends.index(end), t) for t, end in enumerate(target_ends) if end in source_ends]
    assert common_ends(source, target).T.tolist() == [list(pair) for pair in slow]


@given(st.text(max_size=8), st.data())
def test_a_cut_text_keeps_its_whole_characters(text, data):
    whole = text.encode()
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, len(whole)))
    tokens = [whole[i : i + 1] for i in range(first, last)]
    kept = b"".join(tokens[distillation.whole_characters(tokens)]).decode()
    assert kept in text
    assert kept.encode() == whole[first:last].decode("utf-8", "ignore").encode()


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(2, 40))
def test_paired_tokens_end_the_same_text(texts, max_tokens):
    vocabularies = Vocabularies(OLD, NEW)
    windows = Windows(vocabularies, END, max_tokens)
    for window in windows.of_block(joined_ids(NEW, texts)[0]):
        source = [vocabularies.source_tokens[id] for id in window.source_ids]
        target = [vocabularies.target_tokens[id] for id in window.target_ids]
        assert len(source) <= max_tokens
        assert END not in window.target_ids
        for old, new in window.pairs_2P.T:
            assert min(old, new) > 0
            assert b"".join(source[: old + 1]) == b"".join(target[: new + 1])


@pytest.mark.parametrize("make", [gpt2, llama])
def test_hidden_states_equal_those_of_the_whole_model(make):
    model, ids_BT = make().eval(), torch.arange(12).reshape(2, 6)
    whole = model(ids_BT, output_hidden_states=True).hidden_states
    assert torch.equal(hidden_after(model, 2, ids_BT), whole[2])
    assert torch.equal(model(ids_BT).logits, model(ids_BT).logits)  # the hook is gone


def blocks(num_blocks=24):
    """Blocks of 24 tokens, two a batch."""
    return BlockLoader(
        joined_ids(NEW, [f" {sentence(seed, 9)}" for seed in range(200)])[0], 24, 2, seed=0,
        num_blocks=num_blocks,
    )  # fmt: skip


def aligned(make, is_tied=False):
    """A model with rows for the new tokenizer, its old rows, and which of the new ones were copied."""
    torch.manual_seed(0)
    model = make()
    model.resize_token_embeddings(len(OLD))
    if not is_tied:
        tying.untie(model, "tiny")
    vocabularies = Vocabularies(OLD, NEW)
    source_rows = make_room(model, vocabularies)
    fillers = [rows.copied(vocabularies.source_ids), pieces.filler(vocabularies)]
    kinds = put_rows(model, source_rows, fillers)
    return model, source_rows[0], kinds == "copied"


def run_distillation(model, source_VD, is_copied_V, path, loader=None):
    windows = Windows(Vocabularies(OLD, NEW), END, 32)
    return distill(
        model, source_VD, loader or blocks(), windows, is_copied_V, SavedState(path, 0.0)
    )


@pytest.mark.parametrize(
    ("make", "is_tied"),
    [(gpt2, True), (gpt2, False), (llama, False), (lambda: llama(tied=True), True)],
)
def test_distillation_changes_only_new_rows_and_lowers_the_distance(make, is_tied, tmp_path):
    model, source_VD, is_copied_V = aligned(make, is_tied)
    before = copy.deepcopy(model.state_dict())
    losses = run_distillation(model, source_VD, is_copied_V, tmp_path / "x.pt", blocks(200))
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert (head.weight is embeddings.weight) == is_tied
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not embeddings.sparse
    for name, after in model.state_dict().items():
        if after.data_ptr() != embeddings.weight.data_ptr():
            assert torch.equal(after, before[name]), name
    rows_before = before[next(n for n, p in model.named_parameters() if p is embeddings.weight)]
    has_moved_V = (embeddings.weight != rows_before).any(1).numpy()
    assert not has_moved_V[is_copied_V].any()
    assert has_moved_V.any()


def test_a_step_of_distillation_equals_autograd_on_the_whole_model(tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "schedule", lambda done: 1.0)
    model, source_VD, is_copied_V = aligned(gpt2)
    twin = copy.deepcopy(model)
    (loss,) = run_distillation(model, source_VD, is_copied_V, tmp_path / "x.pt", blocks(2))
    new = twin.get_input_embeddings()
    windows, total, count = Windows(Vocabularies(OLD, NEW), END, 32), 0.0, 0
    for ids_T in next(iter(blocks(2)))[0].numpy():
        for window in windows.of_block(ids_T):
            states = []
            for weight_VD, ids in ((source_VD, window.source_ids), (new.weight, window.target_ids)):
                inputs_1TD = weight_VD[torch.from_numpy(ids.astype(np.int64))][None]
                out = twin.eval()(inputs_embeds=inputs_1TD, output_hidden_states=True)
                states.append(out.hidden_states[2][0])  # a third of four blocks, rounded up
            for old, at in window.pairs_2P.T:
                total += ((states[1][at] - states[0][old]) ** 2).sum() / (states[0][old] ** 2).sum()
                count += 1
    torch.testing.assert_close(loss, float((total / count).detach()))
    (grad_VD,) = torch.autograd.grad(total / count, new.weight)
    grad_VD[torch.from_numpy(is_copied_V)] = 0
    moved_VD = (model.get_input_embeddings().weight - new.weight).detach()
    # the first step of Adam has the size of the rate, against the sign of the gradient
    large = grad_VD.abs() > 1e-4
    assert large.any()
    torch.testing.assert_close(moved_VD[large], -6e-3 * grad_VD.sign()[large], rtol=1e-3, atol=1e-6)
    assert not moved_VD[grad_VD == 0].any()


def shared_matrix_and_rows(model, loader, counts_V):
    """The head fit in float64, in the original coordinates, one row at a time."""
    with torch.no_grad():
        batches = [
            (model(x, output_hidden_states=True).hidden_states[-1].flatten(0, 1).double(), y)
            for x, y in loader
        ]
    first_ND = torch.cat([hidden_ND for hidden_ND, _ in batches[:16]])
    moment_DD = first_ND.T @ first_ND / len(first_ND)
    variances_D, axes_DD = torch.linalg.eigh(moment_DD)
    scales_D = torch.zeros_like(variances_D)
    has_D = variances_D > 1e-6 * variances_D.max()
    scales_D[has_D] = variances_D[has_D] ** -0.5
    whiten_DD = axes_DD * scales_D
    prior_VD = model.get_output_embeddings().weight.detach().double()
    weight_VD, width = prior_VD.clone(), prior_VD.shape[1]
    shared_DD = torch.zeros(width, width, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([shared_DD], lr=1, betas=(0.9, 0.99))
    num_tokens = sum(y.numel() for _, y in batches)
    a = head_fit._PRIOR * float(moment_DD.trace())
    for number, (hidden_ND, y) in enumerate(batches):
        weight_VD.requires_grad_(True)
        moved_ND = hidden_ND + hidden_ND @ whiten_DD @ shared_DD @ axes_DD.T
        loss = torch.nn.functional.cross_entropy(moved_ND @ weight_VD.T, y.flatten())
        optimizer.zero_grad()
        loss.backward()
        share = schedule(number / len(batches))
        optimizer.param_groups[0]["lr"] = head_fit._RATE * share
        optimizer.step()
        with torch.no_grad():
            gradient_VD = num_tokens * weight_VD.grad + a * (weight_VD - prior_VD)
            frequencies_V = np.maximum(counts_V, 0.1) / np.maximum(counts_V, 0.1).sum()
            steps = []
            for row, frequency in zip(gradient_VD, frequencies_V, strict=True):
                hessian_DD = num_tokens * frequency * moment_DD + a * torch.eye(width)
                steps.append(torch.linalg.solve(hessian_DD, row))
            weight_VD = weight_VD - 2 * share * y.numel() / num_tokens * torch.stack(steps)
    shared_DD = whiten_DD @ shared_DD.detach() @ axes_DD.T
    return weight_VD + weight_VD @ shared_DD.T


@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_head_fit_equals_its_slow_twin_and_changes_nothing_else(make, tmp_path):
    model, _, _ = aligned(make)
    counts_V = np.bincount(blocks().ids, minlength=len(NEW))
    before = copy.deepcopy(model.state_dict())
    wanted_VD = shared_matrix_and_rows(model.eval(), blocks(), counts_V)
    losses = fit_head(model, blocks(), counts_V, SavedState(tmp_path / "x.pt", 15.0))
    head = model.get_output_embeddings()
    assert len(losses) == 12
    moved_VD = wanted_VD.float() - before["lm_head.weight"]
    assert moved_VD.abs().max() > 1e-3
    error_VD = head.weight - wanted_VD.float()
    assert error_VD.norm() < 0.01 * moved_VD.norm()
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, after in model.state_dict().items():
        assert name == "lm_head.weight" or torch.equal(after, before[name]), name


def test_the_head_fit_lowers_the_loss(tmp_path):
    model, _, _ = aligned(llama)
    loader = blocks(400)
    counts_V = np.bincount(loader.ids, minlength=len(NEW))
    losses = fit_head(model, loader, counts_V, SavedState(tmp_path / "x.pt", 15.0))
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.1


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", ["distillation", "head"])
def test_a_resumed_step_ends_as_a_straight_one(step, tmp_path, monkeypatch):
    def rows_after(path):
        model, source_VD, is_copied_V = aligned(gpt2)
        if step == "distillation":
            losses = run_distillation(model, source_VD, is_copied_V, path)
            return model.get_input_embeddings().weight, losses
        counts_V = np.bincount(blocks().ids, minlength=len(NEW))
        losses = fit_head(model, blocks(), counts_V, SavedState(path, 0.0))
        return model.get_output_embeddings().weight, losses

    straight_VD, straight = rows_after(tmp_path / "straight.pt")
    save = SavedState.save

    def save_and_die(self, state, *, now=False):
        save(self, state, now=now)
        if state["batch"] == 5:
            raise Killed

    monkeypatch.setattr(SavedState, "save", save_and_die)
    with pytest.raises(Killed):
        rows_after(tmp_path / "killed.pt")
    monkeypatch.setattr(SavedState, "save", save)
    resumed_VD, resumed = rows_after(tmp_path / "killed.pt")
    assert torch.equal(resumed_VD, straight_VD)
    assert resumed == straight
    again_VD, _ = rows_after(tmp_path / "killed.pt")  # a finished step is not repeated
    assert torch.equal(again_VD, straight_VD)


def test_a_damaged_state_is_not_used(tmp_path, caplog):
    path = tmp_path / "x.pt"
    path.write_bytes(b"not a state")
    assert SavedState(path, 15.0).load() == {}
    assert f"{path} is damaged" in caplog.text


LEARNT = ("align.tie=untie", "align.distill_tokens=2048", "align.head_tokens=2048")


@pytest.fixture(scope="module")
def settings(tiny_dump, tmp_path_factory):
    artifacts = tmp_path_factory.mktemp("run") / "artifacts"
    return (*tiny_settings(tiny_dump, artifacts), *NANO, "align.calibration_tokens=0")


def test_the_stage_learns_rows_and_continues_after_an_interruption(settings, monkeypatch):
    _, plain = build(settings, "align", "align.tie=untie")
    assert not {"distillation", "head"} & set(plain.facts)
    saved = SavedState.save

    def save_and_die(self, state, *, now=False):
        saved(self, state, now=True)
        if self.path.name == "head.pt":
            raise Killed

    monkeypatch.setattr(SavedState, "save", save_and_die)
    with pytest.raises(Killed):
        build(settings, "align", *LEARNT)
    monkeypatch.setattr(SavedState, "save", saved)
    reads = []
    monkeypatch.setattr(Windows, "of_block", lambda *_: reads.append(1))
    _, made = build(settings, "align", *LEARNT)
    assert not reads  # the distillation was finished
    assert made.facts["distillation"][-1] < made.facts["distillation"][0]
    assert len(made.facts["head"]) == len(made.facts["distillation"])
    assert not any("scratch" in name for name in made.manifest["files"])
    model, before = causal_lm.load(made.folder), causal_lm.load(plain.folder)
    changed = {
        name
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, before.state_dict()[name])
    }
    assert changed == {"transformer.wte.weight", "lm_head.weight"}


def test_a_tied_head_is_not_fitted(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = (*settings, "runtime.artifacts_dir=none", "align.head_tokens=2048")
    for act in (lambda: build(more, "align"), lambda: plan.read_shape(load_config(None, more))):
        with pytest.raises(ModelError, match=r"shares the matrix of the embeddings; set align.tie"):
            act()
    assert not Path("none").exists()  # rejected before anything is built


def test_more_tokens_than_the_training_text_has_are_warned_of(tmp_path, caplog):
    np.arange(101, dtype="<u2").tofile(tmp_path / "train.bin")
    section = AlignConfig(distill_tokens=1000, head_tokens=101)
    resources = Resources(section, Artifact(tmp_path, {"facts": {"dtype": "<u2"}}), None, 10)
    assert resources.shuffled_blocks("head_tokens").epoch_blocks == 10
    assert not caplog.messages
    assert resources.shuffled_blocks("distill_tokens").epoch_blocks == 10
    (message,) = caplog.messages
    assert message.startswith(
        "align.distill_tokens=1,000 is more than the 101 tokens of the training"
    )


def test_a_random_model_has_nothing_to_learn_rows_from(settings):
    with pytest.raises(ConfigError, match="which method: random replaces"):
        load_config(None, (*settings, "align.method=random", "align.distill_tokens=2048"))
