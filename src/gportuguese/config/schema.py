"""The sections of a run's YAML as frozen dataclasses: names, types, defaults and what each means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gportuguese.config.bounds import Matches, OneOf, Within
from gportuguese.config.methods import METHODS


class UserError(Exception):
    """Something the user can mend: shown without a traceback, exit code 2."""


class ConfigError(UserError):
    """The configuration is wrong; the message lists every problem found."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how to run: recorded with each result, but not part of its identity."""

    artifacts_dir: str = "artifacts"
    """Folder of the stage folders."""
    device: Annotated[str, Matches(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N")] = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    micro_batch_size: Annotated[int, Within("[1, inf)")] = 8
    """Sequences per forward pass; gradients accumulate up to `train.global_batch_size`."""
    num_workers: Annotated[int, Within("[0, inf)")] = 0
    """Processes that clean pages; 0 means one per core."""
    vocab_multiple: Annotated[int, Within("[1, inf)")] = 1
    """Logits are computed for a vocabulary padded to a multiple of this: 64 suits GPUs. Padding is
    never predicted nor saved."""
    loss_rows: Annotated[int, Within("[1, inf)")] = 1024
    """Tokens whose logits exist at a time; more costs memory, much less costs time."""
    activation_checkpointing: bool = False
    """Compute each block's activations again in the backward pass instead of keeping them."""
    compile: bool = False
    """`torch.compile` the model: meant for GPUs, does not pay on CPUs."""
    tf32: bool = False
    """On CUDA, round float32 matrix products to TF32."""
    checkpoint_minutes: Annotated[float, Within("(0, inf)")] = 15.0
    """How often a training saves where it is; also when it is told to stop."""
    wait_hours: Annotated[float, Within("(0, inf)")] = 48.0
    """How long other processes wait while the first one builds what comes before training."""


@dataclass(frozen=True, kw_only=True)
class DumpConfig:
    """Which Wikipedia dump."""

    source: str | None = None
    """Path, URL, or `package:NAME` for what the package carries; wins over `wiki` and `date`."""
    wiki: str = "ptwiki"
    """Name of the wiki on the dump host."""
    date: str = "latest"
    """`latest` or YYYYMMDD."""
    mirror: str | None = None
    """Base address of a mirror laid out as the dump host is."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which documents, and how they are split.

    A page of a dump is dropped for the first of: other namespace, redirect, disambiguation, long
    title, too short. A row of your own documents: no text, too short. Then: exact duplicate.
    """

    documents: str | None = None
    """Own documents instead of a dump: a .jsonl, .jsonl.gz, .parquet or .txt file, or a folder of
    them. Rows need a `text`, and may have a `title` and an `id`; other columns are not read."""
    txt_document: Literal["file", "line", "paragraph"] = "file"
    """What is one document in a .txt file; blank lines stand between paragraphs."""
    language: str | None = None
    """Language of the documents (ISO 639-1), for sample prompts and the model card; null: the dump's."""
    min_chars: Annotated[int, Within("[0, inf)")] = 1800
    """Shorter documents (characters of clean text) are dropped."""
    max_title_chars: int = 150
    """Pages with longer titles are dropped, as in the original recipe."""
    dedup: Literal["near", "exact", "off"] = "near"
    """`exact`: drop documents whose text occurred before; `near`: and keep those that say nearly the
    same, such as templated stubs, on one side of the split."""
    templates: Literal["expand", "tables"] = "expand"
    """`expand`: templates leave the words that the dump's own definitions give them, as far as these do
    without Lua; `tables`: only those that the tables of the language name."""
    page_seconds: Annotated[float, Within("(0, inf)")] = 30.0
    """A page that takes longer to clean is set aside in `quarantine.jsonl`."""
    valid_per_mille: Annotated[int, Within("[1, 1000)")] = 10
    """Validation share, by SHA-256 of the page id."""
    test_per_mille: Annotated[int, Within("[0, 1000)")] = 10
    """Test share, by SHA-256 of the page id."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Byte-level BPE."""

    vocab_size: Annotated[int, Within("[257, inf)")] = 50257
    """Entries, the 256 bytes and `<|endoftext|>` included."""
    min_frequency: Annotated[int, Within("[1, inf)")] = 2
    """A pair seen less often is not merged."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """How documents become blocks."""

    block_size: Annotated[int, Within("[2, inf)")] = 1024
    """Tokens per training sequence."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A fresh GPT-2 instead of a trained base model."""

    layers: Annotated[int, Within("[3, inf)")]
    width: Annotated[int, Within("[1, inf)")]
    heads: Annotated[int, Within("[1, inf)")]
    positions: Annotated[int, Within("[2, inf)")]
    dropout: Annotated[float, Within("[0, 1)")] = 0.1


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Which base model, and how its embeddings meet the new vocabulary."""

    base: str | Architecture = "gpt2"
    """Hub id, folder, .gguf file, `package:NAME`, or an architecture to start from scratch."""
    method: Annotated[str, OneOf(("auto", *METHODS, "random"))] = "auto"
    """How the rows of the new vocabulary are made. `auto` tries what the files below allow and takes the
    method with the lowest loss on training text; `random` starts the whole model from random weights.
    docs/results/alignment.md compares the others."""
    source_documents: str | None = None
    """Text in the base model's language for `bridge` and `wechsel`: files as `corpus.documents`."""
    dictionary: str | None = None
    """Lines 'source<TAB>target', the word of the base model's language first."""
    source_vectors: str | None = None
    """fastText .vec or .bin for `wechsel`; null: trained on `source_documents`."""
    target_vectors: str | None = None
    """The same in the new language; null: trained on the training documents. Give both or none."""
    vector_tokens: Annotated[int, Within("[1, inf)")] = 50_000_000
    """At most so many tokens of each language are read to train vectors and to count."""
    calibration_tokens: Annotated[int, Within("[0, inf)")] = 8192
    """Training tokens read, three times, to make every token as likely as it is frequent: rows move along the
    mean hidden state, but for bytes, digits, marks and names. 0: rows stay as the method gives them."""
    sharpness: Annotated[float, Within("(0, inf)")] = 4.0
    """Of the mixtures in `focus`; 1 is the paper's, more takes fewer tokens into each."""
    seed: Annotated[int, Within("[0, 4294967295]")] = 0
    """Seed of whatever the method draws."""


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One one-cycle fit."""

    name: Annotated[str, Matches(r"[\w-]+", "letters, digits, - and _")]
    epochs: Annotated[int, Within("[1, inf)")]
    trainable_groups: Annotated[int, Within("[1, 4]")]
    """How many of the four parameter groups train, counted from the embeddings (1) to all (4)."""
    lr_max: Annotated[float, Within("(0, inf)")]
    """Peak learning rate of the last group."""
    lr_ratio: Annotated[float, Within("[1, inf)")] = 45.6976
    """`lr_max` over the peak rate of the first group; geometric in between (recipe: 2.6^4)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The fine-tuning recipe; the defaults are the published ones."""

    seed: Annotated[int, Within("[0, inf)")] = 0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Refused where the device cannot."""
    global_batch_size: Annotated[int, Within("[1, inf)")] = 8
    """Sequences per optimizer step, all devices together."""
    epoch_tokens: int | None = None
    """Training tokens per epoch; null means every block once."""
    valid_tokens: int | None = 1_048_576
    """Validation tokens after each epoch, spread evenly over the set; null means all. `evaluate`
    reads all of it once more at the end."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: the matrices of the blocks by Muon (Jordan 2024), the rest by AdamW; needs PyTorch 2.9
    and a device with bf16, in which it computes."""
    weight_decay: Annotated[float, Within("[0, inf)")] = 0.01
    """Decoupled; not applied to biases and norms, as fastai does."""
    momentums: tuple[Annotated[float, Within("[0, 1)")], ...] = (0.95, 0.85, 0.95)
    """First Adam moment, or Muon's momentum, at the start, peak and end of a cycle."""
    beta2: Annotated[float, Within("[0, 1)")] = 0.99
    """Second Adam moment (fastai's sqr_mom)."""
    eps: Annotated[float, Within("(0, inf)")] = 1e-5
    pct_start: Annotated[float, Within("(0, 1)")] = 0.25
    """Share of a phase in which the rate rises."""
    div: Annotated[float, Within("(0, inf)")] = 25.0
    """`lr_max` over the first rate."""
    div_final: Annotated[float, Within("(0, inf)")] = 1e5
    """`lr_max` over the last rate."""
    grad_clip: Annotated[float, Within("(0, inf)")] | None = None
    """Largest gradient norm; null means no clipping, as in the recipe."""
    max_loss_rise: Annotated[float, Within("(0, inf)")] | None = 3.0
    """A step whose loss is so many nats above the mean of the last 50 stops the run; null: never."""
    dropout: Annotated[float, Within("[0, 1)")] | None = None
    """Everywhere in the model; null keeps what the base model was trained with."""
    tensorboard: bool = True
    """Write TensorBoard logs beside the weights."""
    phases: tuple[PhaseConfig, ...] = (
        PhaseConfig(name="embeddings", epochs=1, trainable_groups=1, lr_max=2e-3, lr_ratio=1.0),
        PhaseConfig(name="top", epochs=1, trainable_groups=2, lr_max=1e-3),
        PhaseConfig(name="middle", epochs=1, trainable_groups=3, lr_max=5e-4),
        PhaseConfig(name="all", epochs=2, trainable_groups=4, lr_max=1e-4),
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The final report."""

    tokens: int | None = None
    """Tokens of each held-out set, spread evenly; null means all."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the samples; null: by the language of the corpus (pt, en, it, es, fr, de; for others
    the openings of held-out documents)."""
    sample_tokens: Annotated[int, Within("[1, inf)")] = 50
    """New tokens per sample."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The folder that users load, and what its card says."""

    formats: tuple[Literal["bin", "onnx", "gguf-f32", "gguf-f16", "gguf-q8_0"], ...] = ()
    """Beside safetensors, each checked against it."""
    title: str | None = None
    """Name of the model; null: that of the run."""
    repo: str | None = None
    """`user/name` in the card's examples; null: `push` puts its `--repo` there."""
    language: str | None = None
    """ISO 639-1, for the Hub; null: that of the corpus."""
    license: str = "mit"
    """Of the model, as the Hub names it."""
    dataset: str | None = None
    """Hub id of the data set it was trained on, if that is on the Hub; null: the card names none."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run."""

    name: str
    runtime: RuntimeConfig = RuntimeConfig()
    dump: DumpConfig = DumpConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig()
    align: AlignConfig = AlignConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
