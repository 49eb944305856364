"""The sections of a run's YAML as frozen dataclasses: names, types, defaults and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gportuguese.config.bounds import IsLanguage, Matches, OneOf, Within
from gportuguese.config.formats import FORMATS
from gportuguese.config.methods import METHODS

DEVICE = Matches(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N")
_NAME = Matches(r"\w[\w.-]*", "letters, digits, ., - and _, not beginning with . or -")


class UserError(Exception):
    """An error that the user can fix: shown without a traceback, exit code 2."""


class ConfigError(UserError):
    """The configuration is wrong; the message lists every problem found."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how to run. Recorded with each result, but not part of its digest."""

    artifacts_dir: str = "artifacts"
    """Folder that holds the stage folders."""
    device: Annotated[str, DEVICE] = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    micro_batch_size: Annotated[int, Within("[1, inf)")] = 8
    """Sequences per forward pass; gradients accumulate up to `train.global_batch_size`."""
    num_workers: Annotated[int, Within("[0, inf)")] = 0
    """Number of processes that clean pages; 0 means one per core."""
    vocab_multiple: Annotated[int, Within("[1, inf)")] = 1
    """Pad the vocabulary to a multiple of this when computing logits; 64 suits GPUs. The padding is
    never predicted and never saved."""
    loss_rows: Annotated[int, Within("[1, inf)")] = 1024
    """Tokens per chunk of the loss. Larger chunks need more memory; very small ones are slower."""
    activation_checkpointing: bool = False
    """Recompute each block's activations in the backward pass instead of keeping them."""
    compile: bool = False
    """Run the model through `torch.compile`: useful on GPUs, not worth it on CPUs."""
    tf32: bool = False
    """On CUDA, use TF32 for float32 matrix products."""
    checkpoint_minutes: Annotated[float, Within("(0, inf)")] = 15.0
    """Minutes between training checkpoints. Training also saves one when it is asked to stop."""
    wait_hours: Annotated[float, Within("(0, inf)")] = 48.0
    """Hours that the other processes wait while process 0 builds the stages before training."""


@dataclass(frozen=True, kw_only=True)
class DumpConfig:
    """Which Wikipedia dump to use."""

    source: str | None = None
    """Path, URL, or `package:NAME` for a file shipped with the package. Overrides `wiki` and `date`."""
    wiki: str = "ptwiki"
    """Name of the wiki on the dump host, such as `ptwiki`."""
    date: str = "latest"
    """`latest` or YYYYMMDD."""
    mirror: str | None = None
    """Base URL of a mirror with the same layout as the dump host."""


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which documents of a source to keep."""

    min_chars: Annotated[int, Within("[0, inf)")] | None = None
    """Drop documents with fewer characters; null uses `corpus.min_chars`."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One of several texts that make up a corpus."""

    documents: str
    """A file or folder, a pattern (`texts/*.jsonl`), a URL, the id of a data set on the Hub
    (`wikimedia/wikipedia`), or `dump` for the dump of section `dump`. Files are .parquet, .json, .jsonl,
    .csv or .txt, the last four also as .gz, .bz2 or .zst. docs/data.md shows them."""
    name: Annotated[str, _NAME] | None = None
    """Name in the `source` column and in reports; null derives it from `documents` and `subset`."""
    subset: str | None = None
    """Subset of a Hub data set, such as `20231101.pt`; null for the only or default one."""
    split: str = "train"
    """Split of a Hub data set."""
    revision: str | None = None
    """Commit, tag or branch of a Hub data set; null is the newest. The commit found is kept, and is part
    of the digest."""
    text: str = "text"
    """Column with the text."""
    id: str = "id"
    """Column with the id; rows without one are named by file and line."""
    title: str = "title"
    """Column with the title; it may be missing."""
    weight: Annotated[float, Within("[0, 1]")] | None = None
    """Share of the training tokens. Set it for all sources, adding up to 1, or for none: then each is read
    once. 0 only measures a source in the report."""
    language: Annotated[str, IsLanguage()] | None = None
    """Language of the documents (ISO 639-1). If null, the first source takes `corpus.language`, and `dump`
    then takes the dump's. Any other source without a language counts as text in the first one's. The
    tokenizer and the alignment learn from the sources in that language, whatever the region (`pt-BR` is
    `pt`), so give replay text its own: `language: en`."""
    filter: FilterConfig = FilterConfig()
    """Which of its documents to keep."""
    bytes: Annotated[int, Within("[1, inf)")] | None = None
    """Stop after this many bytes of text (UTF-8) that passed the filter; null reads everything. The limit
    is in bytes, because the tokenizer is trained on this text."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which documents to keep, and how to split them.

    A dump page is dropped for the first reason that applies: other namespace, redirect,
    disambiguation, long title, too short, shares text with `exclude`. A row of your own documents is
    dropped if it has no text, is too short or shares text. Exact duplicates are dropped last.
    """

    documents: str | None = None
    """Your own documents instead of a dump: a file, folder, pattern, URL or Hub id, as in
    `SourceConfig.documents`. Rows need a `text` and may have a `title` and an `id`; other columns are
    ignored."""
    sources: tuple[SourceConfig, ...] = ()
    """Several sources instead of one. The first is the target language; all are split by the same
    ratios."""
    txt_document: Literal["file", "line", "paragraph"] = "file"
    """How to split a .txt file into documents. Blank lines separate paragraphs."""
    language: Annotated[str, IsLanguage()] | None = None
    """Language of the documents (ISO 639-1) for sample prompts and the model card; null uses the
    language of the first source or of the dump."""
    min_chars: Annotated[int, Within("[0, inf)")] = 1800
    """Drop documents with fewer characters of clean text."""
    max_title_chars: int = 150
    """Drop pages with longer titles, as in the original recipe."""
    dedup: Literal["near", "exact", "off"] = "near"
    """`exact` drops documents with the same text as an earlier one. `near` also puts near-duplicates,
    such as templated stubs, on the same side of the split."""
    exclude: tuple[str, ...] = ()
    """Files or folders of evaluation texts, in the formats of `corpus.documents`. Documents that share 13
    words in a row with one of them are dropped (Brown et al., 2020), whatever the case, punctuation and
    spaces; texts of 8 to 12 words count as a whole, shorter ones not at all. Of a .txt file, each line
    is also a text. The words are in `dropped.jsonl`."""
    templates: Literal["expand", "tables"] = "expand"
    """`expand` replaces templates by the words that the dump's own definitions give them, except for
    Lua; `tables` knows only the templates named in the language's table."""
    page_seconds: Annotated[float, Within("(0, inf)")] = 30.0
    """Time limit for cleaning a page. Slower pages go to `quarantine.jsonl`."""
    valid_per_mille: Annotated[int, Within("[1, 1000)")] = 10
    """Share of the validation set, assigned by SHA-256 of the page id."""
    test_per_mille: Annotated[int, Within("[0, 1000)")] = 10
    """Share of the test set, assigned by SHA-256 of the page id."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How to train the byte-level BPE tokenizer."""

    method: Literal["retrain", "extend"] = "retrain"
    """`retrain` learns a new vocabulary. `extend` keeps all tokens of the tokenizer of `align.base`, with
    their ids, merges and rows, and learns further ones on top of them: no text gets more tokens than
    before. It needs byte-level BPE, like that of GPT-2, Llama 3 or SmolLM2."""
    vocab_size: Annotated[int, Within("[257, inf)")] = 50257
    """Number of tokens, including the 256 bytes and `<|endoftext|>`. With `extend` it counts the old
    tokens too: 59152 adds 10,000 to the 49,152 of SmolLM2."""
    min_frequency: Annotated[int, Within("[1, inf)")] = 2
    """Merge only pairs that occur at least this often."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """How documents are cut into blocks."""

    block_size: Annotated[int, Within("[2, inf)")] = 1024
    """Tokens per training sequence."""
    boundaries: Literal["none", "start"] = "none"
    """`none` joins the documents and cuts every `block_size` tokens. `start` packs whole documents into
    each training block (best fit; Ding et al., 2024), so that it begins at a document's start; only longer
    documents, and the few that fill the last room, are cut. Evaluation always uses `none`."""
    max_repeats: Annotated[float, Within("[1, inf)")] = 4.0
    """Warn if weights make a source repeat more often than this in a pass over the training text. Up to
    four times, repeated text is nearly as good as new text (Muennighoff et al., 2023)."""
    seed: Annotated[int, Within("[0, inf)")] = 0
    """Random seed of the documents that are drawn to give sources their weights."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A GPT-2 with random weights instead of a trained base model."""

    layers: Annotated[int, Within("[3, inf)")]
    """Number of blocks."""
    width: Annotated[int, Within("[1, inf)")]
    """Length of a token's vector; a multiple of `heads`."""
    heads: Annotated[int, Within("[1, inf)")]
    """Attention heads of a block."""
    positions: Annotated[int, Within("[2, inf)")]
    """Longest context in tokens; at least `tokens.block_size`."""
    dropout: Annotated[float, Within("[0, 1)")] = 0.1
    """Dropout rate of embeddings, attention and residuals."""


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Which base model to use, and how to give it embeddings for the new vocabulary."""

    base: str | Architecture = "gpt2"
    """Hub id, folder, .gguf file, `package:NAME`, or an architecture to train from scratch."""
    method: Annotated[str, OneOf(("auto", *METHODS, "random"))] = "auto"
    """How to initialize the embedding rows of the new vocabulary. `auto` tries each method that the files
    below allow and picks the one with the lowest loss on training text. `random` starts the whole model
    from random weights. docs/results/alignment.md compares the others."""
    source_documents: str | None = None
    """Text in the base model's language for `bridge` and `wechsel`, in the formats of
    `corpus.documents`."""
    dictionary: str | None = None
    """Bilingual dictionary with lines 'source<TAB>target'; the base model's language comes first."""
    source_vectors: str | None = None
    """fastText .vec or .bin file for `wechsel`; null trains vectors on `source_documents`."""
    target_vectors: str | None = None
    """The same for the new language; null trains vectors on the training documents. Set both or
    neither."""
    vector_tokens: Annotated[int, Within("[1, inf)")] = 50_000_000
    """Maximum number of tokens read per language to train vectors and count words."""
    calibration_tokens: Annotated[int, Within("[0, inf)")] = 8192
    """Training tokens read (three times) to match each token's predicted probability to its frequency.
    Rows move along the mean hidden state; rows of bytes, digits, punctuation and names stay fixed, except
    with `align.tie: untie`. With `tokenizer.method: extend`, those of all old tokens stay fixed. 0 turns
    calibration off."""
    sharpness: Annotated[float, Within("(0, inf)")] = 4.0
    """Sharpness of the mixtures in `focus`. 1 is the paper's value; higher values mix fewer tokens."""
    tie: Literal["keep", "untie"] = "keep"
    """`untie` gives an output head that shares the matrix of the input embeddings a copy of its own, so
    that calibration moves only the head, and both train apart. This adds vocabulary size x width
    parameters (GPT-2 small: 38.6M). `keep` leaves the base as it is."""
    distill_tokens: Annotated[int, Within("[0, inf)")] = 0
    """Training tokens read to distil the new embedding rows: the first third of the blocks learns to
    read the new tokens as it read the old ones. Use it with `head_tokens`; 0 turns it off."""
    head_tokens: Annotated[int, Within("[0, inf)")] = 0
    """Training tokens read to fit the output head to the last hidden states. Needs a head of its
    own (`align.tie: untie`); 0 turns it off."""
    seed: Annotated[int, Within("[0, 4294967295]")] = 0
    """Random seed of the method, of distillation and of the fit."""


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One training phase: one fit with the one-cycle schedule."""

    name: Annotated[str, Matches(r"[\w-]+", "letters, digits, - and _")]
    """Name in the log and in the epoch table."""
    epochs: Annotated[int, Within("[1, inf)")]
    """Epochs of the phase, in one cycle of the learning rate."""
    trainable_groups: Annotated[int, Within("[1, 4]")]
    """How many of the four parameter groups are trained, counted from the last. The first three are
    thirds of the blocks; the last is what is outside them: embeddings, positions, final norm, head."""
    trainable: Literal["groups", "new_rows"] = "groups"
    """`new_rows` trains only the rows of embeddings and output head that alignment did not copy from the
    base. All other weights stay as they are, bit for bit. It needs `trainable_groups: 1`."""
    lr_max: Annotated[float, Within("(0, inf)")]
    """Peak learning rate of the last group."""
    lr_ratio: Annotated[float, Within("[1, inf)")] = 45.6976
    """`lr_max` divided by the peak learning rate of the first group. The groups in between follow a
    geometric series (recipe: 2.6^4)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The fine-tuning recipe; the defaults are the published ones."""

    seed: Annotated[int, Within("[0, inf)")] = 0
    """Random seed of the order of blocks and of dropout."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Numeric precision. Rejected if the device does not support it."""
    global_batch_size: Annotated[int, Within("[1, inf)")] = 8
    """Sequences per optimizer step, summed over all devices."""
    epoch_tokens: int | None = None
    """Training tokens per epoch; null uses every block once."""
    valid_tokens: int | None = 1_048_576
    """Validation tokens read after each epoch, spread evenly over the set; null reads all of it.
    `evaluate.tokens` is the same for the final report."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` trains the matrices of the blocks with Muon (Jordan 2024) and the rest with AdamW. Muon
    needs PyTorch 2.9 and a device that supports bf16, because it computes in bf16."""
    weight_decay: Annotated[float, Within("[0, inf)")] = 0.01
    """Decoupled weight decay. Like fastai, it skips biases and norms."""
    momentums: tuple[Annotated[float, Within("[0, 1)")], ...] = (0.95, 0.85, 0.95)
    """Adam's beta1, or Muon's momentum, at the start, peak and end of a cycle."""
    beta2: Annotated[float, Within("[0, 1)")] = 0.99
    """Adam's beta2 (fastai's sqr_mom)."""
    eps: Annotated[float, Within("(0, inf)")] = 1e-5
    """Adam's epsilon, which keeps small gradients from becoming large steps."""
    pct_start: Annotated[float, Within("(0, 1)")] = 0.25
    """Share of a phase used for learning-rate warm-up."""
    div: Annotated[float, Within("(0, inf)")] = 25.0
    """`lr_max` divided by the initial learning rate."""
    div_final: Annotated[float, Within("(0, inf)")] = 1e5
    """`lr_max` divided by the final learning rate."""
    grad_clip: Annotated[float, Within("(0, inf)")] | None = None
    """Maximum gradient norm; null turns clipping off, as in the recipe."""
    max_loss_rise: Annotated[float, Within("(0, inf)")] | None = 3.0
    """Stop the run if the loss of a step is this many nats above the mean of the last 50 steps; null
    turns the check off."""
    dropout: Annotated[float, Within("[0, 1)")] | None = None
    """Dropout rate everywhere in the model; null keeps the base model's."""
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where to log losses and learning rates. `tensorboard` writes them next to the weights; wandb and
    trackio are extras (`pip install 'gportuguese[wandb]'`). Not part of the digest."""
    callbacks: tuple[Annotated[str, Matches(r"[\w.]+:[\w.<>]+", "package.module:Name")], ...] = ()
    """Your own fastai callbacks, as `package.module:Name`: a class, a callback, or a function that
    returns one, in an installed package or in the working folder. No code runs that is not named
    here. Names are part of the digest, except those of callbacks known only to observe."""
    phases: tuple[PhaseConfig, ...] = (
        PhaseConfig(name="embeddings", epochs=1, trainable_groups=1, lr_max=2e-3, lr_ratio=1.0),
        PhaseConfig(name="top", epochs=1, trainable_groups=2, lr_max=1e-3),
        PhaseConfig(name="middle", epochs=1, trainable_groups=3, lr_max=5e-4),
        PhaseConfig(name="all", epochs=2, trainable_groups=4, lr_max=1e-4),
    )
    """The phases, in order."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The final report."""

    tokens: int | None = None
    """Tokens read from each held-out set, spread evenly; null reads all of them."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the samples. null picks them by the language of the corpus (pt, en, it, es, fr, de);
    other languages use the openings of held-out documents."""
    sample_tokens: Annotated[int, Within("[1, inf)")] = 50
    """New tokens per sample."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The exported folder that users load, and its model card."""

    formats: tuple[Annotated[str, OneOf(tuple(FORMATS))], ...] = ()
    """Formats to write besides safetensors. Each is compared with the PyTorch model."""
    title: str | None = None
    """Name of the model; null uses the run's name."""
    repo: str | None = None
    """`user/name` for the examples in the card; null lets `push` fill in its `--repo`."""
    language: Annotated[str, IsLanguage()] | None = None
    """Language of the model (ISO 639-1) for the Hub; null uses the corpus language."""
    license: str = "mit"
    """License of the model, as a Hub identifier."""
    dataset: str | None = None
    """Hub id of the training data set, if it is on the Hub; null leaves it out of the card."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run."""

    name: str
    """Name of the run, for its log and model card. A renamed run is not trained again."""
    runtime: RuntimeConfig = RuntimeConfig()
    dump: DumpConfig = DumpConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig()
    align: AlignConfig = AlignConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
