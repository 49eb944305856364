"""What single fields of a config cannot say: ranges, and relations between sections."""

from __future__ import annotations

import re

from gportuguese.config.schema import Architecture, Config


def broken_relations(config: Config) -> list[str]:
    """One line for every range or relation that does not hold."""
    train, corpus, align, runtime = config.train, config.corpus, config.align, config.runtime
    base = align.base
    checks = [
        (runtime.micro_batch_size >= 1, "runtime.micro_batch_size: must be at least 1"),
        (runtime.num_workers >= 0, "runtime.num_workers: must be 0 (one per core) or more"),
        (runtime.vocab_multiple >= 1, "runtime.vocab_multiple: must be at least 1"),
        (runtime.loss_rows >= 1, "runtime.loss_rows: must be at least 1"),
        (runtime.checkpoint_minutes > 0, "runtime.checkpoint_minutes: must be > 0"),
        (runtime.wait_hours > 0, "runtime.wait_hours: must be > 0"),
        (corpus.page_seconds > 0, "corpus.page_seconds: must be > 0"),
        (corpus.min_chars >= 0, "corpus.min_chars: must not be negative"),
        (
            corpus.valid_per_mille >= 1
            and corpus.test_per_mille >= 0
            and corpus.valid_per_mille + corpus.test_per_mille < 1000,
            "corpus: valid_per_mille must be at least 1 and leave something to train on",
        ),
        (
            not (config.dump.source and corpus.documents),
            "dump.source and corpus.documents: give one of them, not both",
        ),
        (
            config.tokenizer.vocab_size >= 257,
            "tokenizer.vocab_size: at least 257 (256 bytes and <|endoftext|>)",
        ),
        (config.tokenizer.min_frequency >= 1, "tokenizer.min_frequency: must be at least 1"),
        (config.tokens.block_size >= 2, "tokens.block_size: must be at least 2"),
        (
            bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", runtime.device)),
            f"runtime.device={runtime.device!r}: use auto, cpu, cuda or cuda:N",
        ),
        (align.vector_tokens >= 1, "align.vector_tokens: must be at least 1"),
        (align.calibration_tokens >= 0, "align.calibration_tokens: must not be negative"),
        (align.sharpness > 0, "align.sharpness: must be > 0"),
        (
            align.method != "bridge" or align.source_documents is not None,
            "align.method: bridge needs align.source_documents, text in the base model's language",
        ),
        (
            align.method != "wechsel"
            or (align.source_documents is not None and align.dictionary is not None),
            "align.method: wechsel needs align.source_documents and align.dictionary",
        ),
        (
            (align.source_vectors is None) == (align.target_vectors is None),
            "align: give both source_vectors and target_vectors, or none",
        ),
        (min(train.seed, align.seed) >= 0, "train.seed and align.seed: must not be negative"),
        (align.seed < 2**32, "align.seed: must be below 2^32"),
        (bool(train.phases), "train.phases: at least one phase"),
        (
            len(train.momentums) == 3 and all(0 <= value < 1 for value in train.momentums),
            "train.momentums: three values in [0, 1): start, peak, end",
        ),
        (train.global_batch_size >= 1, "train.global_batch_size: must be at least 1"),
        (0 < train.pct_start < 1, "train.pct_start: must lie between 0 and 1"),
        (0 <= train.beta2 < 1, "train.beta2: must lie in [0, 1)"),
        (min(train.eps, train.div, train.div_final) > 0, "train: eps, div, div_final must be > 0"),
        (train.weight_decay >= 0, "train.weight_decay: must not be negative"),
        (train.grad_clip is None or train.grad_clip > 0, "train.grad_clip: must be > 0 or null"),
        (
            train.max_loss_rise is None or train.max_loss_rise > 0,
            "train.max_loss_rise: must be > 0 or null",
        ),
        (train.dropout is None or 0 <= train.dropout < 1, "train.dropout: in [0, 1) or null"),
        (config.evaluate.sample_tokens >= 1, "evaluate.sample_tokens: must be at least 1"),
    ]
    if runtime.micro_batch_size >= 1:
        checks.append(
            (
                train.global_batch_size % runtime.micro_batch_size == 0,
                f"train.global_batch_size={train.global_batch_size} does not divide by "
                f"runtime.micro_batch_size={runtime.micro_batch_size}",
            )
        )
    step_tokens = train.global_batch_size * config.tokens.block_size
    for name, count, least in (
        ("train.epoch_tokens", train.epoch_tokens, step_tokens),
        ("train.valid_tokens", train.valid_tokens, config.tokens.block_size),
        ("evaluate.tokens", config.evaluate.tokens, config.tokens.block_size),
    ):
        checks.append((count is None or count >= least, f"{name}={count}: at least {least}"))
    for index, phase in enumerate(train.phases):
        where = f"train.phases[{index}]"
        checks += [
            (bool(re.fullmatch(r"[\w-]+", phase.name)), f"{where}.name: letters, digits, - and _"),
            (phase.epochs >= 1, f"{where}.epochs: must be at least 1"),
            (1 <= phase.trainable_groups <= 4, f"{where}.trainable_groups: 1 to 4"),
            (phase.lr_max > 0, f"{where}.lr_max: must be > 0"),
            (phase.lr_ratio >= 1, f"{where}.lr_ratio: must be at least 1"),
        ]
    if isinstance(base, Architecture):
        checks += [
            (
                align.method == "random",
                "align.method: an architecture in align.base holds no weights; use method: random",
            ),
            (
                base.heads >= 1 and base.width >= 1 and base.width % base.heads == 0,
                f"align.base: width={base.width} does not divide by heads={base.heads}",
            ),
            (base.layers >= 3, "align.base.layers: at least 3 (three groups of blocks)"),
            (0 <= base.dropout < 1, "align.base.dropout: must lie in [0, 1)"),
            (
                config.tokens.block_size <= base.positions,
                f"tokens.block_size={config.tokens.block_size} is above "
                f"align.base.positions={base.positions}",
            ),
        ]
    return [message for holds, message in checks if not holds]
