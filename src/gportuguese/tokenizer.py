"""Byte-level BPE: training, extending, saving for all common loaders, and tokens as byte strings."""

from __future__ import annotations

import copy
import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gportuguese import corpus, extension
from gportuguese.artifacts import Artifact
from gportuguese.base import locate_base
from gportuguese.config import Config, TokenizerConfig, UserError
from gportuguese.world import World

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("gportuguese")

END_OF_TEXT = "<|endoftext|>"
_PORTION_CHARS = 1 << 22  # encoded at once; each takes about 200 bytes of memory


class TokenizerError(UserError):
    """A tokenizer cannot be trained or is not byte-level BPE."""


def build(config: Config, inputs: dict[str, Artifact], out: Path, world: World) -> dict[str, Any]:
    """Trains on the training documents; writes tokenizer.json, vocab.json, merges.txt, vocab.txt.

    Of several sources it reads those in the target language, each document once. Raises `TokenizerError`
    if the corpus cannot fill the vocabulary, or if the base's tokenizer cannot be extended.
    """
    section, stored = config.tokenizer, inputs["corpus"]
    target = corpus.target_sources(stored)
    if target is not None:
        _report_sources(stored, target)
    sources = target or (None,)

    def batches() -> Iterator[list[str]]:
        return chain.from_iterable(corpus.load(stored, "train", source=name) for name in sources)

    facts = {}
    if section.method == "extend":
        source = load_extendable(config)
        tokenizer = extend(source, batches, section)
        facts["base_vocab_size"] = len(source)
    else:
        texts = (text for batch in batches() for text in batch)
        vocab, merges = train(texts, section.vocab_size, section.min_frequency)
        tokenizer = make_tokenizer(vocab, merges)
    save(tokenizer, out)
    lines = (
        f"{id}\t{token_bytes.decode('utf-8', 'backslashreplace')!r}\n"
        for id, token_bytes in enumerate(bytes_of_tokens(tokenizer))
    )
    (out / "vocab.txt").write_text("".join(lines), encoding="utf-8")
    return {
        "vocab_size": len(tokenizer),
        "merges": len(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]),
        "probe": tokenizer.tokenize(corpus.probe_of(inputs["corpus"])),
        **facts,
    }


def _report_sources(stored: Artifact, target: list[str]) -> None:
    """Logs which sources the new vocabulary is learned from."""
    languages = {each["name"]: each["language"] for each in stored.facts["sources"]}
    names = [f"{name} ({languages.pop(name) or 'no language set'})" for name in target]
    others = [f"{name} ({language})" for name, language in languages.items()]
    log.info(
        "tokenizer and alignment learn from %s%s",
        ", ".join(names),
        f"; not from {', '.join(others)}" if others else "",
    )


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
        raise _too_little_text(len(vocab) + 1, vocab_size)
    vocab[END_OF_TEXT] = len(vocab)
    return vocab, [tuple(pair) for pair in model["merges"]]


def _too_little_text(found: int, wanted: int) -> TokenizerError:
    return TokenizerError(
        f"the corpus fills only {found} of tokenizer.vocab_size={wanted} entries; "
        f"set it to {found} or less, or bring more text"
    )


def load_base(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model, which is fetched if necessary.

    Raises `TokenizerError` if it has none, or one that is not byte-level BPE.
    """
    path = locate_base(name, download=True)
    assert path is not None
    try:
        tokenizer = read_files(path)
    except ImportError as error:
        raise TokenizerError(f"{name}: {error}; pip install 'gportuguese[gguf]'") from error
    except (OSError, ValueError, KeyError) as error:
        raise TokenizerError(f"{name} has no tokenizer: {why_not_loaded(error)}") from error
    check_byte_level(tokenizer, name)
    return tokenizer


def load_extendable(config: Config) -> PreTrainedTokenizerBase:
    """The tokenizer of the base model, which `tokenizer.method: extend` adds tokens to.

    Fetches the base if necessary. Raises `TokenizerError` if it cannot be extended, or if
    `tokenizer.vocab_size` leaves no room for new tokens.
    """
    name, wanted = config.align.base, config.tokenizer.vocab_size
    assert isinstance(name, str)  # config/relations.py rejects an architecture
    tokenizer = load_base(name)
    reason = extension.unsupported(tokenizer.backend_tokenizer)
    if tokenizer.eos_token_id is None:
        reason = "it has no end-of-text token (eos_token) to put after each document"
    if reason is not None:
        raise TokenizerError(
            f"the tokenizer of {name} cannot be extended: {reason}; "
            "set tokenizer.method=retrain, or choose another base"
        )
    size = num_ids(tokenizer)
    if wanted <= size:
        raise TokenizerError(
            f"tokenizer.vocab_size={wanted} counts the {size} tokens that {name} has; to add "
            f"N tokens with tokenizer.method=extend, set it to {size} + N"
        )
    return tokenizer


def extend(
    source: PreTrainedTokenizerBase,
    batches: Callable[[], Iterable[list[str]]],
    section: TokenizerConfig,
) -> PreTrainedTokenizerBase:
    """The tokenizer with new tokens; it keeps all ids, merges, special tokens and the chat template.

    New merges come after all old ones. So a text is first encoded as before, and then some of its
    tokens are joined: it never has more tokens than before. Raises `TokenizerError` if the texts do
    not fill the vocabulary.
    """
    from transformers import PreTrainedTokenizerFast

    base = plain_backend(source)
    vocab, merges = extension.learn(
        base,
        lambda: chain.from_iterable(map(portions, batches())),
        section.vocab_size,
        section.min_frequency,
    )
    if len(vocab) < section.vocab_size:
        raise _too_little_text(len(vocab), section.vocab_size)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=extension.extended(base, vocab, merges),
        **source.special_tokens_map,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = source.chat_template
    return tokenizer


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
    # transformers 5 renamed the class that follows tokenizer.json; it still accepts the name that 4 knows
    path = folder / "tokenizer_config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'), "utf-8")


def load(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; raises `TokenizerError` if it is not byte-level BPE."""
    try:
        tokenizer = read_files(folder)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"no tokenizer in {folder}: {why_not_loaded(error)}") from error
    check_byte_level(tokenizer, str(folder))
    return tokenizer


def read_files(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or .gguf file; the exceptions are those of transformers."""
    from transformers import AutoTokenizer

    if path.is_dir():
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)


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

    An id without a token, as some vocabularies have below their last one, gets no bytes.

    >>> bytes_of_tokens(tokenizer)[tokenizer.convert_tokens_to_ids("Ġthe")]
    b' the'
    """
    to_byte = {character: byte for byte, character in _bytes_to_unicode().items()}
    added = {int(id): token.content for id, token in tokenizer.added_tokens_decoder.items()}
    tokens = tokenizer.convert_ids_to_tokens(range(num_ids(tokenizer)))
    return [
        added[id].encode() if id in added else bytes(map(to_byte.__getitem__, token or ""))
        for id, token in enumerate(tokens)
    ]


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """The highest id of a tokenizer, plus one; more than `len` if some ids are not used."""
    return 1 + int(max(tokenizer.get_vocab().values()))


def portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups texts into portions of at most `_PORTION_CHARS`; a longer text, like a book, is alone."""
    portion: list[str] = []
    num_chars = 0
    for text in texts:
        if portion and num_chars + len(text) > _PORTION_CHARS:
            yield portion
            portion, num_chars = [], 0
        portion.append(text)
        num_chars += len(text)
    if portion:
        yield portion


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
