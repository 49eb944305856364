"""A fastai `Learner` for notebooks: everything that fastai users know works on it.

Shapes: B sequences, T tokens of a block, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gportuguese.callbacks import HeadInLoss, Logits, NextEpoch, TokenMetrics
from gportuguese.learner import PhaseLearner, make_phase_learner

# isort: split
# imported after the callbacks, which silence fastai's import warnings
import torch
from fastai.callback.hook import PrettyString
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import valley
from fastai.learner import Recorder

from gportuguese import artifacts, causal_lm, locate, tokenizer
from gportuguese.config import Config, UserError, load_config, resolve_path, shipped_configs
from gportuguese.generation import Sampling, Writer
from gportuguese.loaders import make_loaders, show_texts
from gportuguese.loss import HeadLoss
from gportuguese.lr_find import draw_search
from gportuguese.pipeline import Pipeline
from gportuguese.precision import check_machine
from gportuguese.tokens import load_token_bytes
from gportuguese.world import init_world, keep_freed_memory, seed_everything

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_GATHERED_BYTES = 4 << 30


class LearnerError(UserError):
    """The learner cannot do that."""


class LogitsLoss(HeadLoss):
    """`HeadLoss` with what fastai asks of a loss function.

    Between fits the model has its head, and this loss takes logits.
    """

    reduction = "mean"
    """`none` returns the nats of every token, `[B, T]`."""

    def __repr__(self) -> str:
        return "cross entropy, in nats per token"

    def __call__(self, input_BTX: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """The mean nats per token; with `reduction="none"`, those of every token."""
        loss = super().__call__(input_BTX, targets_BT)
        return self.nats_BT if self.reduction == "none" else loss

    def activation(self, logits_BTV: torch.Tensor) -> torch.Tensor:
        """The probabilities of the next token."""
        return logits_BTV.float().softmax(-1)

    def decodes(self, probabilities_BTV: torch.Tensor) -> torch.Tensor:
        """The most likely next tokens, `[B, T]`."""
        return probabilities_BTV.argmax(-1)


class InteractiveLearner(PhaseLearner):
    """A fastai `Learner` of a causal LM, as `make_learner` returns it.

    Differences from other learners of fastai:

    - Its parameter groups are thirds of the blocks and, last, everything outside of them:
      `freeze_to(-1)` trains the embeddings. The optimizer's state survives `freeze_to`.
    - `lr_find` counts optimizer steps, which may take several batches.
    - `export` writes a folder for transformers instead of a pickle.
    """

    tokenizer: PreTrainedTokenizerBase

    def fit(
        self,
        n_epoch: int,
        lr: Any = None,
        wd: float | None = None,
        cbs: Any = None,
        reset_opt: bool = False,
        start_epoch: int = 0,
    ) -> None:
        """Fits for `n_epoch` epochs; after an interruption the learner can be used again."""
        try:
            super().fit(n_epoch, lr, wd, cbs, reset_opt, start_epoch)
        finally:
            self.leave()

    def leave(self) -> None:
        """Undoes what a fit did to the model, also after an interruption."""
        super().leave()
        self.loss_func.release()
        self.guard.after_fit()

    def freeze_to(self, n: int) -> None:
        """Trains the parameter groups from `n` on: -1 is the embeddings, 0 everything."""
        self.opt.freeze_to(n)

    def lr_find(
        self,
        start_lr: float = 1e-7,
        end_lr: float = 10,
        num_it: int = 100,
        stop_div: bool = True,
        show_plot: bool = True,
        suggest_funcs: Any = (valley,),
    ) -> Any:
        """Searches a learning rate in `num_it` steps and restores the weights afterwards.

        Returns a named tuple with one suggestion for each function. Draws the losses and marks the
        suggestions on them.
        """
        num_batches = num_it * self.step_loss.passes_per_step
        epoch = self.dls.train.epoch
        found = super().lr_find(start_lr, end_lr, num_batches, stop_div, False, suggest_funcs)
        self.dls.train.epoch = epoch
        if show_plot:
            from matplotlib import pyplot as plt

            _, axes = plt.subplots(figsize=(7, 4), layout="constrained")
            draw_search(axes, self.recorder, {} if found is None else found._asdict())
        return found

    def summary(self) -> Any:
        """fastai's table of layers, shapes and parameters; counts a tied head once."""
        parameters = list(self.model.parameters())
        total = causal_lm.count_parameters(parameters)
        trained = causal_lm.count_parameters(p for p in parameters if p.requires_grad)
        counts = (
            f"Total params: {total:,}\nTotal trainable params: {trained:,}\n"
            f"Total non-trainable params: {total - trained:,}\n"
        )
        text = re.sub(r"Total params: (.*\n){3}", counts, str(super().summary()))
        return PrettyString(text)

    def get_preds(self, ds_idx: int = 1, dl: Any = None, *more: Any, **options: Any) -> Any:
        """fastai's `get_preds`: probabilities `[N, T, V]` and targets `[N, T]`.

        Raises `LearnerError` if they would take more than 4 GB; pass `dl=[batch, ...]`, or
        `with_preds=False, with_loss=True` for the nats per token of every sequence.
        """
        if dl is None and options.get("with_preds", True):
            loader = self.dls[ds_idx]
            sizes = (loader.epoch_blocks, loader.block_size, self.model.config.vocab_size)
            num_bytes = 4 * sizes[0] * sizes[1] * sizes[2]
            if num_bytes > _MOST_GATHERED_BYTES:
                raise LearnerError(
                    f"the predictions of {sizes[0]} sequences x {sizes[1]} tokens x {sizes[2]} "
                    f"classes take {num_bytes / 1e9:,.0f} GB; pass dl=[batch], or with_preds=False"
                )
        return super().get_preds(ds_idx, dl, *more, **options)

    def show_results(
        self, ds_idx: int = 1, dl: Any = None, max_n: int = 4, max_tokens: int = 40, **_: Any
    ) -> None:
        """Shows texts beside the most likely token at each of their positions."""
        batch = self.dls[ds_idx].one_batch() if dl is None else next(iter(dl))
        inputs_BT, targets_BT = (part[:max_n] for part in batch)
        with self.no_bar():
            *_, decoded_BT = self.get_preds(dl=[(inputs_BT, targets_BT)], with_decoded=True)
        columns = {"text": inputs_BT, "text_": targets_BT, "pred": decoded_BT}
        decode = self.tokenizer.decode
        show_texts(
            {
                name: [decode(row) for row in ids_BT[:, :max_tokens].tolist()]
                for name, ids_BT in columns.items()
            }
        )

    def predict(self, text: str, max_new_tokens: int = 40, **sampling: Any) -> str:
        """The text with a continuation; options are those of `gportuguese.generate`."""
        writer = Writer(self.model.eval(), self.tokenizer, str(self.dls.device))
        options = Sampling(max_new_tokens=max_new_tokens, **sampling)
        return text + writer.write(text, options)

    def export(self, folder: str | Path = "export") -> Path:
        """Writes model and tokenizer to `learn.path/folder`, for transformers and `load_model`."""
        out: Path = self.path / folder
        out.mkdir(parents=True, exist_ok=True)
        causal_lm.save(self.model, out)
        tokenizer.save(self.tokenizer, out)
        return out


def make_learner(
    source: Config | str | Path = "demo",
    *,
    callbacks: Sequence[Any] = (),
    metrics: Sequence[Any] = (),
) -> InteractiveLearner:
    """A fastai `Learner` with a run's model, batches, loss and optimizer, for work by hand.

    `dls.one_batch()` is a pair of token ids: inputs and targets, each int64 `[B, T]`. Losses are
    nats per token. Each validation reports accuracy, perplexity and bits per byte.

    Args:
        source: A `Config`, the name of a shipped config, or a YAML file: the learner starts from
            the aligned base model, and missing stages are built. The folder of a run: it starts
            from the trained weights.
        callbacks: More fastai callbacks.
        metrics: More fastai metrics, or functions of logits `[B, T, V]` and targets `[B, T]`.

    Returns:
        The learner, with all groups trainable. `fit_one_cycle`, `lr_find`, `freeze_to`, `validate`,
        `summary`, `recorder.plot_loss` and the others do what they do in fastai.

    Raises:
        UserError: The config, an input or the machine does not allow it.

    >>> learn = make_learner("demo")
    >>> learn.freeze_to(-1)
    >>> sum(p.numel() for p in learn.model.parameters() if p.requires_grad)
    835968
    >>> inputs, targets = learn.dls.one_batch()
    >>> inputs.shape
    torch.Size([8, 256])
    """
    is_name = str(source) in shipped_configs()  # even beside a folder of that name
    if not isinstance(source, Config) and not is_name and Path(source).is_dir():
        run = locate.find_stage(str(source), "train")
        config = locate.config_of_run(run, ())
        digest = artifacts.read_manifest(run).manifest["inputs"]["tokens"]
        tokens = artifacts.open_artifact(run.with_name(f"tokens-{digest}"))
        folder = run / "model"
    else:
        config = source if isinstance(source, Config) else load_config(source)
        pipeline = Pipeline(config)
        folder = pipeline.build("align").folder
        config, tokens = pipeline.config, pipeline.open("tokens")
    world = init_world(config.runtime)
    check_machine(world.device, config)
    keep_freed_memory()
    seed_everything(config.train.seed, 0)
    bpe = tokenizer.load(folder)
    loaders = make_loaders(config, tokens, world, bpe)
    model = causal_lm.load(folder)
    learn = make_phase_learner(model, loaders, config, world, InteractiveLearner, LogitsLoss)
    assert isinstance(learn, InteractiveLearner)
    learn.leave()
    learn.tokenizer, learn.logger = bpe, print
    learn.path = resolve_path(config.runtime.artifacts_dir)
    of_tokens = TokenMetrics(load_token_bytes(tokens.folder, world.device))
    learn.metrics = [*of_tokens.metrics(), *metrics]
    learn.add_cbs([HeadInLoss, Logits, of_tokens, Recorder, ProgressCallback, NextEpoch])
    learn.add_cbs(callbacks)
    return learn
