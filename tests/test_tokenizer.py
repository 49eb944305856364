import functools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gportuguese import tokenizer
from gportuguese.config import asset_path
from gportuguese.tokenizer import END_OF_TEXT, TokenizerError
from tests.conftest import SHARED, sentence


@functools.cache
def trained():
    texts = ["Gosto do queijo e do vinho. " * 3 + sentence(number, 80) for number in range(50)]
    vocab, merges = tokenizer.train(iter(texts), 330, 2)
    return tokenizer.make_tokenizer(vocab, merges)


@given(st.text())
def test_any_unicode_survives_encoding_and_decoding(text):
    ids = trained()(text)["input_ids"]
    assert trained().decode(ids, clean_up_tokenization_spaces=False) == text


@given(st.text())
def test_token_bytes_spell_the_text(text):
    table = tokenizer.bytes_of_tokens(trained())
    ids = trained().backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(table[id] for id in ids) == text.encode()


def test_end_of_text_is_last_and_every_byte_has_a_token():
    assert trained().convert_tokens_to_ids(END_OF_TEXT) == len(trained()) - 1 == 329
    table = tokenizer.bytes_of_tokens(trained())
    assert {bytes([byte]) for byte in range(256)} <= set(table)
    assert len(set(table)) == len(table)


def test_saved_folder_gives_the_same_ids_with_and_without_tokenizer_json(tmp_path):
    tokenizer.save(trained(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
    }
    text = "Gosto do queijo e vinho."
    wanted = trained()(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == wanted
    (tmp_path / "tokenizer.json").unlink()  # as for transformers 4's slow tokenizer
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == wanted
    assert str(tmp_path) not in (tmp_path / "tokenizer_config.json").read_text()


def test_merges_are_saved_as_strings_for_every_release_of_transformers(tmp_path):
    tokenizer.save(trained(), tmp_path)
    merges = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"][
        "merges"
    ]
    lines = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges == [line for line in lines if not line.startswith("#version")]
    assert all(merge.count(" ") == 1 for merge in merges)


def test_no_stand_in_contains_white_space():
    stand_ins = tokenizer.stand_ins_of(bytes(range(256)))
    assert not any(character.isspace() for character in stand_ins)
    vocab, merges = tokenizer.train(iter(["a   b \t\n c\u00a0d\u2003e \u0085 f " * 50]), 265, 2)
    assert len(merges) == 8
    assert not any(c.isspace() for pair in (*merges, vocab) for token in pair for c in token)


def test_spaces_before_punctuation_survive_saving_and_loading(tmp_path):
    tokenizer.save(trained(), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["clean_up_tokenization_spaces"] is False
    loaded = tokenizer.load(tmp_path)
    text = "custa ? Nada , diz"
    assert loaded.decode(loaded(text)["input_ids"]) == text
    tokenizer.save(loaded, tmp_path / "again")  # as `train` and `export` do
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (
        tmp_path / "tokenizer.json"
    ).read_bytes()
    again = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert again["clean_up_tokenization_spaces"] is False


def test_the_error_for_a_too_small_corpus_gives_the_vocabulary_that_it_fills():
    with pytest.raises(TokenizerError, match=r"fills only \d+ of tokenizer.vocab_size=5000"):
        tokenizer.train(iter(["um dois um dois"]), 5000, 2)


def test_wordpiece_is_rejected():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(TokenizerError, match="of BERT is not byte-level BPE \\(it is WordPiece\\)"):
        tokenizer.check_byte_level(PreTrainedTokenizerFast(tokenizer_object=backend), "BERT")


def test_sentencepiece_bpe_is_rejected():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "<0x41>": 1, "▁a": 2}
    backend = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    with pytest.raises(TokenizerError, match="byte-fallback BPE"):
        tokenizer.check_byte_level(PreTrainedTokenizerFast(tokenizer_object=backend), "Llama 2")


def test_byte_level_bpe_without_the_bytes_that_utf8_never_uses_is_accepted():
    # like SmolLM2's vocabulary
    never_in_utf8 = ("À", "Á", "ÿ")
    kept = [token for token in trained().get_vocab() if token not in never_in_utf8]
    lacking = tokenizer.make_tokenizer({token: id for id, token in enumerate(kept)}, [])
    tokenizer.check_byte_level(lacking, "SmolLM2")
    assert len(tokenizer.bytes_of_tokens(lacking)) == len(lacking) == len(trained()) - 3


def test_packaged_base_is_byte_level_and_complete():
    from transformers import AutoModelForCausalLM

    folder = asset_path("english-nano")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config.vocab_size == len(tokenizer.load(folder)) == 4096
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.data
def test_gpt2s_own_files_give_the_byte_strings_of_its_vocabulary():
    folder = SHARED / "gpt2_tokenizer"
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    gpt2 = tokenizer.make_tokenizer(vocab, merges)
    table = tokenizer.bytes_of_tokens(gpt2)
    assert len(table) == 50257
    assert table[vocab["Ġthe"]] == b" the"
    assert table[50256] == END_OF_TEXT.encode()
    not_utf8 = [
        token for token in table if b"\xef\xbf\xbd" in token.decode("utf-8", "replace").encode()
    ]
    assert len(set(not_utf8)) == len(not_utf8) > 256 - 95 - 3
