"""What fastai users do with a `Learner`, done with ours."""

import shutil
from dataclasses import replace

import matplotlib
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger, ShowGraphCallback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.metrics import Perplexity, accuracy
from fastprogress import fastprogress

from gportuguese import (
    causal_lm,
    generate,
    interactive,
    load_config,
    load_model,
    make_learner,
    train,
)
from gportuguese.callbacks.guard import TrainingStopped
from gportuguese.config import Config
from gportuguese.loss import HeadLoss
from gportuguese.world import seed_everything
from tests.conftest import tiny_settings

matplotlib.use("agg")


@pytest.fixture(scope="module")
def config(tiny_dump, tiny_stages, tmp_path_factory) -> Config:
    """A config whose stages before training are built once."""
    folder = shutil.copytree(tiny_stages, tmp_path_factory.mktemp("run") / "artifacts")
    return load_config(None, tiny_settings(tiny_dump, folder))


@pytest.fixture
def learn(config, capsys):
    return make_learner(config)


def weights(learn):
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_the_learner_describes_itself(learn, capsys):
    learn.show_training_loop()
    assert "before_step    : [Accumulation, StepLoss, Precision, Guard]" in capsys.readouterr().out
    summary = str(learn.summary())
    # 300 tokens and 32 positions of width 16, three blocks, the last norm; the head is tied
    assert "Total params: 15,184\nTotal trainable params: 15,184\n" in summary
    assert "Optimizer used: AdamW" in summary
    learn.freeze()
    assert "Total trainable params: 5,344\n" in str(learn.summary())
    assert "frozen up to parameter group #3" in str(learn.summary())


def test_batches_are_inputs_and_targets_and_can_be_read(learn, capsys):
    inputs_BT, targets_BT = learn.dls.one_batch()
    assert inputs_BT.shape == targets_BT.shape == (4, 32)
    assert torch.equal(inputs_BT[:, 1:], targets_BT[:, :-1])
    assert torch.equal(learn.dls.one_batch()[0], inputs_BT)  # looking takes nothing
    assert learn.dls.bs == 4
    learn.dls.show_batch(b=(inputs_BT, targets_BT), max_n=2, max_tokens=5)
    shown = capsys.readouterr().out
    assert learn.tokenizer.decode(inputs_BT[1, :5].tolist()).strip() in shown
    learn.show_results(max_n=2, max_tokens=5)
    assert "pred" in capsys.readouterr().out
    learn.show_results(dl=[learn.dls.train.one_batch()], max_n=2, max_tokens=5)
    assert learn.tokenizer.decode(inputs_BT[1, :5].tolist()).strip() in capsys.readouterr().out


def test_validate_measures_and_changes_nothing(learn):
    before = weights(learn)
    loss, share, perplexity, bits = learn.validate()
    assert perplexity == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-5)
    assert 0 <= share < 0.1
    assert 0 < bits < loss / 0.69
    assert torch.equal(weights(learn), before)
    inputs_BT, targets_BT = next(iter(learn.dls.valid))
    logits_BTV = learn.model.eval()(inputs_BT).logits
    assert logits_BTV.shape == (4, 32, 300)  # between fits the model has its head
    by_hand = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
    assert learn.validate(dl=[(inputs_BT, targets_BT)])[0] == pytest.approx(by_hand.item())
    assert learn.loss_func(logits_BTV, targets_BT).item() == pytest.approx(by_hand.item())


def test_fits_learn_and_are_recorded(learn, capsys):
    first = learn.validate()[0]
    learn.fit_one_cycle(2, 1e-2)
    assert learn.recorder.values[-1][1] < first - 0.5
    assert "valid_loss  accuracy  perplexity  bits_per_byte" in capsys.readouterr().out
    axes = learn.recorder.plot_loss()
    assert len(axes.lines[0].get_xdata()) == 2 * 16 - 5
    learn.recorder.plot_sched()
    assert list(learn.recorder.hps) == ["lr", "mom"]
    assert learn.dls.train.epoch == 2
    learn.fine_tune(1)
    learn.fit_flat_cos(1, slice(1e-4, 1e-3))
    assert learn.dls.train.epoch == 5


@pytest.mark.parametrize("micro_batch_size", [8, 2])
def test_lr_find_suggests_draws_and_restores(config, micro_batch_size):
    from matplotlib import pyplot as plt

    runtime = config.runtime.__class__(
        **{**vars(config.runtime), "micro_batch_size": micro_batch_size}
    )
    learn = make_learner(Config(**{**vars(config), "runtime": runtime}))
    learn.freeze()
    before = weights(learn)
    plt.close("all")
    found = learn.lr_find()
    assert 1e-5 < found.valley < 1
    assert torch.equal(weights(learn), before)
    assert learn.dls.train.epoch == 0
    (axes,) = plt.gcf().axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title()
    assert axes.get_xlabel() == "learning rate"
    assert "nats" in axes.get_ylabel()
    curve, mark = axes.lines
    rate, loss = mark.get_data()
    assert rate == [found.valley]
    at = (curve.get_xdata() <= found.valley).sum()
    low, high = sorted(curve.get_ydata()[at - 1 : at + 1])
    assert low <= loss[0] <= high  # the mark is on the curve


def test_four_fits_by_hand_give_the_bytes_of_the_train_stage(config):
    stage = causal_lm.load(train(config).folder / "model")
    learn = make_learner(config)
    for index, phase in enumerate(config.train.phases):
        seed_everything(config.train.seed, index)
        learn.freeze_to(-phase.trainable_groups)
        learn.fit_one_cycle(phase.epochs, slice(phase.lr_max / phase.lr_ratio, phase.lr_max))
    for name, weight in stage.state_dict().items():
        assert torch.equal(weight, learn.model.state_dict()[name]), name


def test_groups_and_rates_count_in_four(learn):
    groups = causal_lm.parameter_groups(learn.model)
    for number in (1, 2, 3, 4):
        learn.freeze_to(-number)
        trained = {id(p) for p in learn.model.parameters() if p.requires_grad}
        assert trained == {id(p) for group in groups[-number:] for p in group}
    learn.freeze_to(3)
    assert {id(p) for p in learn.model.parameters() if p.requires_grad} == {
        id(p) for p in groups[3]
    }
    learn.opt.set_hypers(lr=slice(1e-5, 1e-2), wd=0.1)
    rates = [hypers["lr"] for hypers in learn.opt.hypers]
    assert rates == pytest.approx([1e-5, 1e-5, 1e-4, 1e-4, 1e-3, 1e-3, 1e-2, 1e-2])
    assert [hypers["wd"] for hypers in learn.opt.hypers] == [0.1, 0.0] * 4
    learn.opt.set_hyper("lr", slice(1e-2))
    assert [hypers["lr"] for hypers in learn.opt.hypers] == [1e-3] * 6 + [1e-2] * 2
    learn.opt.set_hyper("lr", [1, 2, 3, 4])
    assert [hypers["lr"] for hypers in learn.opt.hypers] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_predictions_are_probabilities(learn, monkeypatch):
    probabilities_NTV, targets_NT = learn.get_preds()
    assert probabilities_NTV.shape == (16, 32, 300)
    inputs_BT, targets_BT = next(iter(learn.dls.valid))
    wanted = learn.model.eval()(inputs_BT).logits.softmax(-1)
    torch.testing.assert_close(probabilities_NTV[:4], wanted)
    assert torch.equal(targets_NT[:4], targets_BT)
    by_place = learn.get_preds(1, [(inputs_BT, targets_BT)], True)  # with the inputs
    assert torch.equal(by_place[0], inputs_BT)
    none, _, losses_N = learn.get_preds(with_preds=False, with_loss=True)
    assert none is None
    assert losses_N.mean().item() == pytest.approx(learn.validate()[0], rel=1e-5)
    monkeypatch.setattr(interactive, "_MOST_GATHERED_BYTES", 1000)
    with pytest.raises(interactive.LearnerError, match=r"16 sequences x 32 tokens x 300 classes"):
        learn.get_preds()


def test_fastais_metrics_get_logits(config, capsys):
    learn = make_learner(config, metrics=[accuracy, Perplexity()])
    _, ours, perplexity, _, theirs, fastais = learn.validate()
    assert theirs == pytest.approx(ours)
    assert fastais == pytest.approx(perplexity, rel=1e-5)


class Interrupt(Callback):
    """Ctrl+C in a batch, between forward and backward pass."""

    def __init__(self, batch=2):
        self.batch_to_stop = batch

    def after_pred(self):
        if self.iter == self.batch_to_stop:
            raise KeyboardInterrupt("ctrl-c")


def test_an_interrupted_learner_can_be_used_again(learn):
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, 1e-3, cbs=Interrupt())
    assert not torch.is_autocast_enabled("cpu")
    assert learn.model(learn.dls.one_batch()[0]).logits.shape == (4, 32, 300)
    learn.fit(1, 1e-2)
    assert learn.recorder.values[-1][1] < 5.7


class InsideAStep(Callback):
    """Ctrl+C between the two passes of a step."""

    def after_backward(self):
        if self.iter == 2:
            raise KeyboardInterrupt("ctrl-c")


def test_a_fit_that_ended_inside_a_step_leaves_nothing_to_the_next(config):
    once, twice = (make_learner(config) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        twice.fit(1, 0.0, cbs=InsideAStep())
    assert any(p.grad is not None for p in twice.model.parameters())
    for learn in (once, twice):
        learn.create_opt()  # the first fit has moved the moments
        learn.dls.train.epoch = 0
        seed_everything(0, 0)
        learn.freeze_to(-1)
        learn.fit(1, 1e-2)
    assert torch.equal(weights(once), weights(twice))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_fit_stopped_by_a_loss_that_is_not_finite_can_be_followed_by_another(
    config, precision, monkeypatch
):
    learn = make_learner(replace(config, train=replace(config.train, precision=precision)))
    real = HeadLoss.__call__
    with monkeypatch.context() as patch:
        patch.setattr(HeadLoss, "__call__", lambda *args: real(*args) * torch.nan)
        with pytest.raises(TrainingStopped):
            learn.fit(1, 1e-3)
    before = learn.validate()[0]
    learn.fit(1, 1e-2)
    assert learn.validate()[0] < before


def test_an_interrupted_validation_ends_autocast(config):
    learn = make_learner(replace(config, train=replace(config.train, precision="bf16")))
    with pytest.raises(KeyboardInterrupt):
        learn.validate(cbs=Interrupt(batch=0))
    assert not torch.is_autocast_enabled("cpu")
    assert learn.model(learn.dls.one_batch()[0]).logits.shape == (4, 32, 300)


def test_weights_are_saved_loaded_and_exported(learn, tmp_path):
    learn.path = tmp_path
    learn.fit_one_cycle(1, 1e-2)
    kept = weights(learn)
    file = learn.save("kept")
    assert file == tmp_path / "models" / "kept.pth"
    learn.fit_one_cycle(1, 1e-2)
    assert not torch.equal(weights(learn), kept)
    learn.load("kept")
    assert torch.equal(weights(learn), kept)
    text = learn.predict("o rio", max_new_tokens=6, top_k=1)
    folder = learn.export("exported")
    assert text == "o rio" + generate(load_model(folder), "o rio", max_new_tokens=6, top_k=1)


def test_a_runs_folder_gives_its_trained_weights(config):
    run = train(config)
    for source in (run.folder, run.folder.parent, str(run.folder)):
        learn = make_learner(source)
        assert learn.validate()[0] == pytest.approx(run.facts["measures"]["loss"], abs=1e-6)


def test_fastais_callbacks_run(config, tmp_path, monkeypatch, capsys):
    saved, stop = SaveModelCallback(fname="best"), EarlyStoppingCallback(min_delta=10, patience=2)
    learn = make_learner(config, callbacks=[CSVLogger("log.csv"), saved, ShowGraphCallback(), stop])
    learn.path = tmp_path
    graphs = []
    monkeypatch.setattr(
        fastprogress.ConsoleMasterBar, "update_graph", lambda *graph: graphs.append(graph)
    )
    learn.fit_one_cycle(5, 1e-2)
    assert len(graphs) >= 2
    assert len(learn.csv_logger.read_log()) == 3  # the second epoch without an improvement ends it
    assert saved.last_saved_path == tmp_path / "models" / "best.pth"
    best = min(values[1] for values in learn.recorder.values)
    assert learn.validate()[0] == pytest.approx(best, abs=1e-6)
