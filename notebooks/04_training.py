# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Gradual unfreezing, discriminative rates, one-cycle
# The `train` stage is a fastai `Learner` with one `fit_one_cycle` per phase. This notebook lists the phases, runs
# the learning-rate finder, and trains.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Image

from gportuguese import Pipeline, causal_lm, init_world, learner, load_config, optimizer

config = load_config()
pipeline = Pipeline(config)
world = init_world(config.runtime)
inputs = {name: pipeline.build(name, world) for name in ("align", "tokens")}

# %%
groups = causal_lm.parameter_groups(causal_lm.load(inputs["align"].folder))
sizes = [causal_lm.count_parameters(group) for group in groups]
for phase in config.train.phases:
    rates = ", ".join(f"{rate:.1e}" for rate in optimizer.learning_rates(phase)[::2])
    trained = sum(sizes[-phase.trainable_groups :])
    print(f"{phase.name:10} {phase.epochs} epoch(s), {trained:9,} parameters, peak rates {rates}")

# %% [markdown]
# The four parameter groups are ordered from the first blocks to the embeddings. A phase trains the last ones, so
# only its last rates are used. The learning-rate finder tests rates for the first phase:

# %%
picture = Path("lr-find.png")
suggestion = learner.find_rate(config, inputs, picture, world)
Image(picture)

# %% [markdown]
# The training run. A finished run is reused. On the command line this is `gpt-pt train`.

# %%
training = pipeline.build("train", world)
training.facts["measures"]

# %%
time = training.facts["times"]
figure, axes = plt.subplots(figsize=(6, 2.5))
axes.bar([t["epoch"] for t in time], [t["train_seconds"] for t in time], label="training")
axes.set(xlabel="epoch", ylabel="seconds")
axes.legend()
