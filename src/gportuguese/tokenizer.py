"""Byte-level BPE: training, saving for all common loaders, and tokens as byte strings."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gportuguese import corpus
from gportuguese.artifacts import Artifact
from gportuguese.config import Config, UserError
from gportuguese.world import World

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"


class TokenizerError(UserError):
    """A tokenizer cannot be trained or is not byte-level BPE."""


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Trains on the training documents; writes tokenizer.json, vocab.json, merges.txt, vocab.txt.

    Of several sources it reads those in the target language, each document once.

    Raises `TokenizerError` if the corpus cannot fill the vocabulary.
    """
    section = config.tokenizer
    stored, sources = inputs["corpus"], corpus.target_sources(inputs["corpus"])
    batches = chain.from_iterable(
        corpus.load(stored, "train", source=source) for source in sources or (None,)
    )
    vocab, merges = train(
        (text for batch in batches for text in batch),
        section.vocab_size,
        section.min_frequency,
    )
    tokenizer = make_tokenizer(vocab, merges)
    save(tokenizer, out)
    lines = (
        f"{id}\t{token_bytes.decode('utf-8', 'backslashreplace')!r}\n"
        for id, token_bytes in enumerate(bytes_of_tokens(tokenizer))
    )
    (out / "vocab.txt").write_text("".join(lines), encoding="utf-8")
    return {
        "vocab_size": len(tokenizer),
        "merges": len(merges),
        "probe": tokenizer.tokenize(corpus.probe_of(inputs["corpus"])),
    }


def train(
    texts: Iterator[str], vocab_size: int, min_frequency: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as in GPT-2; `<|endoftext|>` is appended as the last id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    vocab: dict[str, int] = dict(model["vocab"])
    if len(vocab) < vocab_size - 1:
        raise TokenizerError(
            f"the corpus fills only {len(vocab) + 1} of tokenizer.vocab_size={vocab_size} entries; "
            f"set it to {len(vocab) + 1} or less, or bring more text"
        )
    vocab[END_OF_TEXT] = len(vocab)
    return vocab, [tuple(pair) for pair in model["merges"]]


def make_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> PreTrainedTokenizerBase:
    """The transformers tokenizer of a vocabulary, made in memory so that no path leaks into it."""
    from transformers import GPT2TokenizerFast

    return GPT2TokenizerFast(
        vocab=vocab,
        merges=merges,
        unk_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,  # transformers 4 would decode " ?" as "?"
    )


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes files that transformers 4 and 5, fast and slow, and keras-hub read."""
    tokenizer.save_pretrained(folder)
    # transformers 5 writes tokenizer.json only; the slow tokenizer of 4 and keras-hub need these
    tokenizer.backend_tokenizer.model.save(str(folder))
    # transformers before 4.45 cannot read merges as pairs. No part of a merge contains a space:
    # byte-level BPE writes the space as "Ġ"
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["model"]["merges"] = list(map(" ".join, tree["model"]["merges"]))
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False), encoding="utf-8")


def load(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; raises `TokenizerError` if it is not byte-level BPE."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"no tokenizer in {folder}: {why_not_loaded(error)}") from error
    check_byte_level(tokenizer, str(folder))
    return tokenizer


def why_not_loaded(error: Exception) -> str:
    """The reason why transformers did not load a folder.

    If a model needs its own Python code, transformers suggests an option that we do not have.
    """
    if "trust_remote_code" in str(error):
        return "it needs Python code of its own (auto_map), which gportuguese never runs"
    return str(error)


def check_byte_level(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises `TokenizerError` unless the tokenizer is byte-level BPE that writes bytes like GPT-2.

    Bytes may be missing: SmolLM2 lacks those that UTF-8 never or rarely uses.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {}
    model = parts.get("model") or {}
    # SentencePiece BPE ("byte_fallback") names its bytes <0x00>; WordPiece has none
    decodes_bytes = '"ByteLevel"' in json.dumps(parts.get("decoder"))
    if model.get("type") == "BPE" and not model.get("vocab"):
        raise TokenizerError(
            f"{name} has no tokenizer files; save the base's tokenizer beside its model"
        )
    if model.get("type") != "BPE" or not decodes_bytes:
        kind = "byte-fallback BPE" if model.get("byte_fallback") else model.get("type", "unknown")
        raise TokenizerError(
            f"the tokenizer of {name} is not byte-level BPE (it is {kind}); "
            "choose a base model with a tokenizer like GPT-2's"
        )


def bytes_of_tokens(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The byte string of every token id; for special and added tokens, the bytes of their name.

    >>> bytes_of_tokens(tokenizer)[tokenizer.convert_tokens_to_ids("Ġthe")]
    b' the'
    """
    to_byte = {character: byte for byte, character in _bytes_to_unicode().items()}
    added = {int(id): token.content for id, token in tokenizer.added_tokens_decoder.items()}
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return [
        added[id].encode() if id in added else bytes(to_byte[character] for character in token)
        for id, token in enumerate(tokens)
    ]


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of the tokenizer's backend that never truncates or pads, even if the saved one does.

    It encodes the name of a special token in a text as plain text.
    """
    backend: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return backend


def stand_ins_of(token: bytes) -> str:
    """The characters with which byte-level BPE writes a byte string.

    >>> stand_ins_of(" ção".encode())
    'ĠÃ§Ã£o'
    """
    return "".join(map(_bytes_to_unicode().__getitem__, token))


@functools.cache
def _bytes_to_unicode() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself if printable, else from 256 upwards."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in stand_ins)
    return stand_ins | {byte: chr(256 + index) for index, byte in enumerate(others)}
