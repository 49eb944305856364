"""The functions of the Python API, besides `load_config`, `Pipeline` and `make_learner`.

Import them from `gportuguese`, which loads PyTorch only when one is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from gportuguese import causal_lm, metrics
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, RuntimeConfig, UserError
from gportuguese.forgetting import sums_over
from gportuguese.generation import Sampling, Writer
from gportuguese.locate import find_model
from gportuguese.metrics import Evaluation
from gportuguese.pipeline import Pipeline
from gportuguese.precision import autocast
from gportuguese.world import init_world


def train(
    config: Config | str | Path = "demo",
    *,
    callbacks: Sequence[Any] = (),
    metrics: Sequence[Any] = (),
) -> Artifact:
    """Trains a run, building missing stages first; what `gpt-pt train` does.

    An interrupted run resumes, and a finished one is only opened. Callbacks that may change the
    weights enter the digest by their names, so a run with them has a folder of its own; later
    commands find it by that folder, or with the same names in `train.callbacks`. fastai's callbacks
    do not resume: they start anew in a resumed run.

    Args:
        config: A `Config`, the name of a shipped config, or a YAML file.
        callbacks: fastai callbacks or classes of them. Each phase is one fit, and `learn.path` is
            the run's folder.
        metrics: fastai metrics, or functions of logits `[B, T, V]` and targets `[B, T]`. Their
            values after each epoch go to `metrics.csv`.

    Returns:
        The run's folder, with `epochs.csv` and `model/`; `facts["measures"]` are those of the last
        epoch: loss in nats per token, accuracy, perplexity and bits per byte.

    Raises:
        UserError: A setting, an input or the machine does not allow it, or the loss diverged.

    >>> from gportuguese import load_config
    >>> short = ("train.epoch_tokens=2048", "train.valid_tokens=2048", "train.tracker=none")
    >>> run = train(load_config("demo", short))
    >>> sorted(run.facts["measures"])
    ['accuracy', 'bits_per_byte', 'epoch', 'loss', 'perplexity', 'phase', 'train_loss']
    """
    return Pipeline(config).build("train", callbacks=callbacks, metrics=metrics)


def load_model(source: Artifact | str | Path = "artifacts", *, device: str = "auto") -> Writer:
    """A model and its tokenizer, ready to write.

    Args:
        source: What `train` returned, an artifacts folder with one trained model, a stage folder,
            any folder that transformers can load, or a Hub id, which is downloaded.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        A `Writer`. Its `model` and `tokenizer` are those of transformers; weights are float32.

    Raises:
        UserError: There is no such model, more than one, or no such device.

    >>> from gportuguese.config import asset_path
    >>> writer = load_model(asset_path("english-nano"), device="cpu")
    >>> writer.model.num_parameters(), len(writer.tokenizer)
    (2615424, 4096)
    """
    source = source.folder if isinstance(source, Artifact) else source
    return Writer.load(find_model(str(source)), init_world(RuntimeConfig(device=device)).device)


@overload
def generate(model: Writer | Artifact | str | Path, prompt: str, **sampling: Any) -> str: ...
@overload
def generate(
    model: Writer | Artifact | str | Path, prompt: Sequence[str], **sampling: Any
) -> list[str]: ...
def generate(
    model: Writer | Artifact | str | Path, prompt: str | Sequence[str], **sampling: Any
) -> str | list[str]:
    """Continues a prompt, or several at once, and returns the new text without the prompt.

    The same prompt and seed give the same text alone, among others, in `gpt-pt generate` and in
    `gpt-pt serve`.

    Args:
        model: What `load_model` returned, or its `source`.
        prompt: One prompt, or a sequence of them.
        sampling: Fields of `Sampling`: `max_new_tokens=50`, `top_k=40`, `top_p=1.0`,
            `temperature=1.0`, `repetition_penalty=1.0`, `seed=0`, `stop=()`.

    Returns:
        The continuation of the prompt; a list of them for a sequence.

    Raises:
        UserError: A sampling option is out of bounds, or a prompt does not fit the model.

    >>> from gportuguese.config import asset_path
    >>> writer = load_model(asset_path("english-nano"), device="cpu")
    >>> generate(writer, "The capital of", max_new_tokens=3, top_k=1)
    ' the world.'
    >>> generate(writer, ["In", "He was"], max_new_tokens=2, top_k=1)
    [' the "', ' a "']
    """
    writer = model if isinstance(model, Writer) else load_model(model)
    options = Sampling(**sampling)
    if isinstance(prompt, str):
        return writer.write(prompt, options)
    return [row.text for row in writer.write_all(prompt, options)]


def evaluate(
    model: Writer | Artifact | str | Path,
    texts: str | Iterable[str],
    *,
    block_size: int | None = None,
    batch_size: int = 8,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
) -> Evaluation:
    """Measures how well a model predicts texts.

    Documents are joined with end-of-text tokens and cut into blocks, as for training. Tokens after
    the last whole block are left out. With a run's validation documents and its `block_size`, this
    is the number in the report of `gpt-pt evaluate`.

    Args:
        model: What `load_model` returned, or its `source`.
        texts: The documents, or a single one; all of their token ids are in memory at once.
        block_size: Tokens that the model reads at a time; by default all its positions, or 1,024 if
            nothing limits them, and never more than there are.
        batch_size: Blocks in a forward pass.
        precision: Numeric precision of the forward pass.

    Returns:
        `loss` in nats per token, `accuracy` of the most likely token, `perplexity`, and
        `bits_per_byte`, the only one to compare between models with different tokenizers, with
        its 95 % interval over the documents (`bits_per_byte_interval`, None for a single one) and
        their number (`documents`).

    Raises:
        UserError: There is no such model, its tokenizer is not byte-level BPE, there are fewer than
            two tokens, or `block_size` is below 1 or above the model's positions.

    >>> from gportuguese.config import asset_path
    >>> measures = evaluate(asset_path("english-nano"), "The house stands by the river.")
    >>> round(measures.bits_per_byte, 1)
    2.1
    """
    writer = model if isinstance(model, Writer) else load_model(model)
    positions = causal_lm.num_positions(writer.model)
    if block_size is not None and not 1 <= block_size <= positions:
        raise UserError(
            f"block_size={block_size} must lie in [1, {positions}], the model's positions"
        )
    documents = [texts] if isinstance(texts, str) else texts
    limit = block_size or min(positions, 1024)
    sums = sums_over(writer, documents, limit, batch_size)
    context = partial(autocast, writer.device, precision)
    metrics.measure(writer.model, sums.loader, sums, context)
    return sums.evaluation()
