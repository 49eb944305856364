# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # 4. Training by hand
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/gportuguese/gportuguese/blob/main/notebooks/04_training.ipynb)
#
# **You learn** what gradual unfreezing, discriminative rates and one-cycle schedules are, how to find a learning rate, and
# how to train with fastai's `Learner` in a notebook. **Time**: about two minutes on two CPU cores, without a network.
#
# The model knows English, and its new embedding rows are guesses. Training everything at once with a high rate would
# destroy what the blocks have learnt. So the recipe of 2020 *unfreezes gradually*: it trains the embeddings first, and
# then more and more of the model. Each phase is one fit with a *one-cycle* schedule, and lower layers learn more
# slowly than higher ones (*discriminative learning rates*).
#
# `gpt-pt train` does all of this. Here we do it step by step, with a fastai `Learner`.

# %%
from importlib.util import find_spec

from IPython import get_ipython

if find_spec("gportuguese") is None:  # on Colab
    source = "git+https://github.com/gportuguese/gportuguese"
    get_ipython().run_line_magic(
        "pip", f"install -q 'gportuguese[vectors] @ {source}'"
    )

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from gportuguese import load_config, make_learner
from gportuguese.causal_lm import count_parameters, parameter_groups

config = load_config("demo")
learn = make_learner(config)  # builds corpus, tokenizer, tokens and align if needed

# %% [markdown]
# A batch is a pair of token ids, inputs and targets. The targets are the inputs moved by one token: at each position the
# model predicts the next token.

# %%
inputs, targets = learn.dls.one_batch()
print(inputs.shape, targets.shape)
learn.dls.show_batch(max_n=2, max_tokens=24)

# %% [markdown]
# Before training: the loss on held-out documents (nats per token), and a continuation. A model that only guesses has a
# loss of ln(4096) = 8.3.

# %%
names = ["loss", *(metric.name for metric in learn.metrics)]
before = dict(zip(names, learn.validate(), strict=True))
print({name: round(value, 3) for name, value in before.items()})

# %% tags=["varies"]
print(learn.predict("Lisboa é a capital de", max_new_tokens=20))

# %% [markdown]
# ## Parameter groups
# The parameters form four groups: the blocks in three parts, from the input upwards, and everything outside of the
# blocks. Twelve blocks are split into thirds; the four of this model are split 2, 1, 1. The last group holds the token embeddings, which are also the output layer. A phase trains the last one, two,
# three or four groups. `lr_max` is the peak rate of the last group; the first group's is `lr_ratio` times lower.

# %%
groups = parameter_groups(learn.model)
sizes = {name: count_parameters(group) for name, group in groups._asdict().items()}
plan = pd.DataFrame(
    {
        phase.name: [
            "trained" if 4 - index <= phase.trainable_groups else "-"
            for index in range(4)
        ]
        for phase in config.train.phases
    },
    index=[f"{name} ({size:,})" for name, size in sizes.items()],
)
plan.loc["trained parameters"] = [
    f"{sum(list(sizes.values())[-phase.trainable_groups :]):,}"
    for phase in config.train.phases
]
plan.loc["peak rate"] = [f"{phase.lr_max:g}" for phase in config.train.phases]
plan

# %% [markdown]
# ## A learning rate for the first phase
# `lr_find` trains for at most a hundred steps with a rate that grows from 1e-7 towards 10, stops when the loss explodes,
# and restores the weights afterwards. Too low a rate learns nothing, too high a rate diverges. The suggestion lies
# between them, where the loss falls.

# %%
learn.freeze()  # all but the last group
found = learn.lr_find()
print(
    f"suggested {found.valley:.1e}, the demo's config uses {config.train.phases[0].lr_max:.1e}"
)

# %% [markdown]
# The config's rate is a few times higher than the suggestion. On the curve it still lies where the loss falls, far below
# the rate at which it explodes, and the first fit below does not diverge. `lr_find` suggests a place to start; only
# training at several rates shows which one is best.
#
# ## Four phases
# Each phase is one `fit_one_cycle`. The table shows the measures after each epoch. Its `train_loss` is smoothed: recent
# steps count most. In the epoch table of `gpt-pt train` it is the mean over the epoch, so the two differ. fastai's recorder starts anew in each
# fit, so we keep what we want to draw.

# %%
history = []


def fit(phase):
    """Trains one phase of the recipe and keeps its curves."""
    learn.freeze_to(-phase.trainable_groups)
    learn.fit_one_cycle(
        phase.epochs, slice(phase.lr_max / phase.lr_ratio, phase.lr_max)
    )
    rec = learn.recorder
    validations = [values[1] for values in rec.values]
    losses = [float(loss) for loss in rec.losses]
    history.append(
        (phase.name, losses, rec.iters, validations, rec.hps["lr"], rec.hps["mom"])
    )


embeddings, top, middle, everything = config.train.phases
fit(embeddings)

# %%
fit(top)

# %%
fit(middle)

# %%
fit(everything)

# %% [markdown]
# ## What happened
# Training loss (smoothed by fastai within each phase) and validation loss, with the phases shaded. Below, the rate of
# the last group and the momentum: in each cycle the rate rises for a quarter of the steps and then falls, and the
# momentum does the opposite.

# %%
figure, (above, below) = plt.subplots(
    2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 2), layout="constrained"
)
momentum = below.twinx()
points = [(0, before["loss"])]
start = 0
for number, (name, losses, ends, validations, rates, momenta) in enumerate(history):
    steps = start + np.arange(1, len(losses) + 1)
    above.plot(
        steps, losses, color="tab:blue", label="training" if number == 0 else None
    )
    points += [
        (start + int(end), loss)
        for end, loss in zip(ends, validations, strict=True)
    ]
    below.plot(
        steps,
        rates,
        color="tab:green",
        label="learning rate" if number == 0 else None,
    )
    momentum.plot(
        steps,
        momenta,
        color="tab:orange",
        label="momentum" if number == 0 else None,
    )
    for axes in (above, below):
        axes.axvspan(
            start,
            steps[-1],
            color="tab:gray",
            alpha=0.08 if number % 2 else 0.2,
            lw=0,
        )
    middle_of_phase = (start + steps[-1]) / 2
    above.text(
        middle_of_phase,
        0.97,
        name,
        ha="center",
        va="top",
        transform=above.get_xaxis_transform(),
    )
    start = steps[-1]
above.plot(*zip(*points, strict=True), "o-", color="tab:red", label="validation")
above.set(title="Loss by phase", ylabel="loss (nats per token)")
above.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
below.set(
    title="One cycle per phase", xlabel="optimizer step", ylabel="learning rate"
)
below.set_yscale("log")
momentum.set_ylabel("momentum (Adam's beta1)")
below.legend(
    handles=[*below.get_lines()[:1], *momentum.get_lines()[:1]],
    loc="upper center",
    bbox_to_anchor=(0.5, -0.28),
    ncol=2,
)
plt.show()

# %% [markdown]
# fastai's own pictures show the last fit:

# %%
learn.recorder.plot_loss(show_epochs=True)
learn.recorder.plot_sched()

# %% [markdown]
# ## After training
# The same measures and the same prompt as at the beginning. A model of 2.6 million parameters, trained on 63
# articles, writes words of Portuguese but no sense.

# %%
after = dict(zip(names, learn.validate(), strict=True))
print(pd.DataFrame({"before": before, "after": after}).round(3))

# %% tags=["varies"]
print(learn.predict("Lisboa é a capital de", max_new_tokens=20))

# %% [markdown]
# `learn.export()` writes a folder that `gpt-pt generate` and transformers load. With the seeds of a run, these four fits
# give the same weights as `gpt-pt train`, byte for byte; a test of the project checks it. `gpt-pt train` also
# checkpoints, resumes, and writes the epoch table: the next notebook.
