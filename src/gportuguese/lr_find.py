"""The learning-rate search of `gpt-pt lr-find`: fastai's `lr_find` on the first phase, and its curve."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gportuguese import causal_lm
from gportuguese.align_files import new_rows
from gportuguese.artifacts import Artifact
from gportuguese.callbacks import Guard
from gportuguese.config import Config
from gportuguese.learner import make_phase_learner, trainable_part
from gportuguese.loaders import make_loaders
from gportuguese.precision import check_machine
from gportuguese.progress import Advance, track
from gportuguese.world import World, keep_freed_memory, seed_everything

# isort: split
# imported after the callbacks, which silence fastai's import warnings
from fastai.callback.core import Callback
from fastai.callback.schedule import valley
from fastai.learner import Recorder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS = 100


class _Meter(Callback):
    """Reports each step of the search."""

    order = 80

    def __init__(self, advance: Advance, guard: Guard) -> None:
        self.advance, self.guard = advance, guard

    def after_step(self) -> None:
        self.advance(1, f"loss {self.guard.running_loss:.3f}, lr {self.opt.hypers[-1]['lr']:.1e}")


def find_rate(config: Config, inputs: dict[str, Artifact], picture: Path, world: World) -> float:
    """The learning rate that fastai's `lr_find` suggests for the first phase; draws the curve."""
    check_machine(world.device, config)
    keep_freed_memory()
    seed_everything(config.train.seed, 0)
    model = causal_lm.load(inputs["align"].folder)
    loaders = make_loaders(config, inputs["tokens"], world)
    learn = make_phase_learner(model, loaders, config, world)
    groups = causal_lm.parameter_groups(model)
    is_new_V = new_rows(inputs["align"].folder)
    part = trainable_part(config.train.phases[0], model, groups, is_new_V)
    learn.add_cbs([Recorder(), part])
    with tempfile.TemporaryDirectory() as scratch, track("lr-find", _STEPS) as advance:
        learn.add_cb(_Meter(advance, learn.guard))
        learn.path = Path(scratch)  # fastai saves the weights there during the search
        suggestion = learn.lr_find(
            num_it=_STEPS * learn.step_loss.passes_per_step,
            suggest_funcs=(valley,),
            show_plot=False,
        )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    draw_search(figure.subplots(), learn.recorder, {"suggested": suggestion.valley})
    figure.savefig(picture, dpi=120)
    return float(suggestion.valley)


def draw_search(axes: Axes, recorder: Recorder, suggestions: Mapping[str, float]) -> None:
    """Draws the smoothed loss of a rate search and marks suggested rates on the curve.

    The last steps, in which the loss leaves the picture, are cut off.
    """
    rates = np.asarray(recorder.lrs)
    losses = np.asarray([float(loss) for loss in recorder.losses])
    low, start = np.nanmin(losses), losses[: max(len(losses) // 10, 1)].max()
    shown = losses <= start + (start - low)
    axes.plot(rates[shown], losses[shown], color="tab:blue", label="smoothed training loss")
    for (name, rate), color in zip(
        suggestions.items(), ("red", "green", "orange", "purple"), strict=False
    ):
        loss = np.interp(np.log(rate), np.log(rates), losses)
        axes.plot(rate, loss, "o", color=f"tab:{color}", markersize=9, label=f"{name}: {rate:.1e}")
    axes.set(
        xscale="log",
        yscale="log",
        title="Learning-rate search",
        xlabel="learning rate",
        ylabel="loss (nats per token)",
    )
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.3g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
