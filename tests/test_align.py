"""Embedding rows for a new vocabulary: small cases by hand, slow references, and whole models."""

import gzip
import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gensim.models.fasttext import FastText, save_facebook_model
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from gportuguese import Pipeline, causal_lm, init_world, load_config, tokenizer
from gportuguese.align import AlignError, candidates, make_room, put_rows, rows, wechsel
from gportuguese.align.bridge import Spaces, predicted_rows
from gportuguese.align.calibration import calibrate, mean_probabilities, move_along_mean
from gportuguese.align.focus import filler as focus_filler
from gportuguese.align.focus import sparsemax
from gportuguese.align.pieces import filler as pieces_filler
from gportuguese.align.report import draw_map
from gportuguese.align.resources import Resources
from gportuguese.align.rows import Vocabularies
from gportuguese.align.shared_tokens import is_literal, shared_rows
from gportuguese.align.vectors import (
    cut,
    learn_rotation,
    rotation,
    train_vectors,
    unit_vectors,
)
from gportuguese.align.wechsel import Words, neighbours, token_vectors
from gportuguese.align.wechsel import filler as wechsel_filler
from gportuguese.align_files import resource_files
from gportuguese.config import AlignConfig, ConfigError
from gportuguese.tokens import BlockLoader, load_ids
from tests.conftest import sentence
from tests.test_causal_lm import gpt2, llama
from tests.test_cli import gpt_pt, sets
from tests.test_loss import small


def byte_tokenizer(words, num_merges=7):
    """A tokenizer of the 256 bytes, the given words with a leading space, and end of text."""
    texts = [f" {word}" * 50 for word in words]
    vocab, merges = tokenizer.train(iter(texts), 257 + num_merges, 2)
    return tokenizer.make_tokenizer(vocab, merges)


@pytest.fixture(scope="module")
def vocabularies():
    return Vocabularies(byte_tokenizer(["casa", "the"]), byte_tokenizer(["mar", "casa"]))


@given(st.lists(st.binary(max_size=3), unique=True), st.lists(st.binary(max_size=3), unique=True))
def test_shared_rows_equal_the_slow_search(source, target):
    ids = shared_rows(source, target).tolist()
    assert ids == [source.index(token) if token in source else -1 for token in target]


def test_rows_by_hand():
    source_VD = np.array([[1.0, 1.0], [3.0, 5.0]], np.float32)
    fillers = [rows.copied(np.array([1, -1])), rows.mean(2)]
    assert rows.assign(fillers).tolist() == [0, 1]
    assert rows.fill(torch.from_numpy(source_VD), fillers).tolist() == [[3.0, 5.0], [2.0, 3.0]]
    bias = rows.fill(torch.tensor([10.0, 20.0]), fillers)
    assert bias.tolist() == [20.0, 15.0]


def test_gaussian_rows_have_the_mean_and_covariance_of_the_source_and_follow_the_seed():
    spread = np.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.1]])
    source_VD = np.random.default_rng(0).normal(size=(4000, 3)) @ spread + [5.0, 0.0, -1.0]
    drawn = rows.gaussian(60_000, seed=1).rows(source_VD)
    np.testing.assert_allclose(drawn.mean(0), source_VD.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(source_VD.T), atol=0.1)
    np.testing.assert_array_equal(drawn[:9], rows.gaussian(60_000, seed=1).rows(source_VD)[:9])
    assert not np.array_equal(drawn[:9], rows.gaussian(60_000, seed=2).rows(source_VD)[:9])


@pytest.mark.parametrize(
    ("token", "literal"),
    [
        (b" pretend", False),  # Portuguese "pretend(e)" is to intend
        (b" actual", False),
        (b" Actual", False),  # " actual" is a token, so this may just start a sentence
        (b" Era", False),
        (b" casa", False),
        (b"\xc3\xa3o", False),
        (b" \xc3", True),  # a space and half a character
        (b"\xe2\x80", True),
        (b" 1998", True),
        (b").", True),
        (b" Madrid", True),
        (b" USA", False),
        (b"a", True),
    ],
)
def test_literals_mean_the_same_in_any_language(token, literal):
    assert is_literal(token, {b" actual"}) == literal


def test_pieces_are_split_by_the_source_merges(vocabularies):
    filler = pieces_filler(vocabularies)
    source_VD = np.eye(len(vocabularies.source_tokens), dtype=np.float32)
    got = filler.rows(source_VD)
    ids = {token: id for id, token in enumerate(vocabularies.source_tokens)}
    row = vocabularies.target_tokens.index(b" mar")
    assert b" mar" not in ids
    wanted = np.zeros(len(ids), np.float32)
    for piece in (b" ", b"m", b"a", b"r"):
        wanted[ids[piece]] += 1 / 4
    np.testing.assert_allclose(got[row], wanted)
    assert filler.has.all()
    for row, id in enumerate(vocabularies.source_ids):  # a shared token is one piece: itself
        if id >= 0 and row != vocabularies.target.eos_token_id:
            assert got[row].nonzero()[0].tolist() == [id]


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8))
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores):
    scores = np.array([scores])
    got = sparsemax(scores)
    assert got.min() >= 0
    assert got.sum() == pytest.approx(1)
    for corner in np.eye(scores.shape[1]):  # no step towards a corner reduces the distance
        step = 0.999 * got + 0.001 * corner
        assert np.linalg.norm(step - scores) >= np.linalg.norm(got - scores) - 1e-9


def test_focus_mixes_shared_tokens_that_are_used_alike():
    """In this language " mar" occurs in the same contexts as the shared token " casa"."""
    both = Vocabularies(byte_tokenizer(["casa", "the"]), byte_tokenizer(["mar", "casa"]))
    ids = {token: id for id, token in enumerate(both.target_tokens)}
    rng = np.random.default_rng(0)
    others = [ids[bytes([byte])] for byte in range(128, 228)]
    corpus = [
        np.array([*rng.choice(others[:50], 3), noun, *rng.choice(others[50:], 3)])
        for noun in rng.choice([ids[b" mar"], ids[b" casa"]], 6000)
    ]

    def sentences():
        return iter(corpus)

    filler = focus_filler(both, sentences, seed=0)
    eye = np.eye(len(both.source_tokens), dtype=np.float32)
    row = filler.rows(eye)[ids[b" mar"]]
    assert row.sum() == pytest.approx(1, abs=1e-4)
    assert both.source_tokens[row.argmax()] == b" casa"
    assert not filler.has[ids[b"q"]]  # never seen


def test_learn_rotation_recovers_a_known_rotation_and_its_pairs():
    rng = np.random.default_rng(0)
    known = np.ones(300, bool)
    own = unit_vectors(rng.normal(size=(300, 20)), known)
    rotation_DD, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    order = rng.permutation(300)
    other = unit_vectors(
        (own.matrix @ rotation_DD)[order] + 0.02 * rng.normal(size=(300, 20)), known
    )
    np.testing.assert_allclose(
        rotation(own.matrix, own.matrix @ rotation_DD), rotation_DD, atol=1e-4
    )
    match = np.argsort(order)  # the row of `other` that matches each row of `own`
    seeds = np.stack([np.arange(30), match[:30]], 1)
    every = np.arange(300)
    found_DD, pairs = learn_rotation(own, other, seeds, every, every)
    assert (match[pairs[:, 0]] == pairs[:, 1]).mean() > 0.99
    np.testing.assert_allclose(found_DD, rotation_DD, atol=0.05)


def test_the_regression_chooses_the_ridge_of_slow_leave_one_out():
    """The slow reference fits the regression once without each row."""
    rng = np.random.default_rng(0)
    source = unit_vectors(rng.normal(size=(60, 8)), np.ones(60, bool))
    source_VD = source.matrix @ rng.normal(size=(8, 5)) + 0.8 * rng.normal(size=(60, 5))
    counts = rng.integers(1, 100, 60)
    target = unit_vectors(rng.normal(size=(7, 8)), np.ones(7, bool))
    spaces = Spaces(target.matrix, target.known, source.matrix, source.known, counts)
    got = predicted_rows(spaces, source_VD)

    from gportuguese.align import bridge

    weights, centre = np.sqrt(counts), source_VD.mean(0)

    def fit(keep, ridge):
        x, y, w = source.matrix[keep].astype(float), source_VD[keep] - centre, weights[keep, None]
        every = source.matrix.astype(float)
        scale = np.trace(every.T @ (weights[:, None] * every)) / 8
        return np.linalg.solve(x.T @ (w * x) + ridge * scale * np.eye(8), x.T @ (w * y))

    def error(ridge):
        total = 0.0
        for row in range(60):
            keep = np.arange(60) != row
            miss = source.matrix[row] @ fit(keep, ridge) + centre - source_VD[row]
            total += weights[row] * (miss**2).sum()
        return total

    best = min(bridge._RIDGES, key=error)
    wanted = centre + target.matrix @ fit(np.arange(60) >= 0, best)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_token_vectors_keep_the_leading_space_and_average_the_words():
    bpe = byte_tokenizer(["casa"], 4)
    vectors = unit_vectors(np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones(2, bool))
    words = Words({"casa": 1, "xcasa": 3}, {"casa": 0, "xcasa": 1}, vectors)
    got = token_vectors(bpe, words)
    ids = {token: id for id, token in enumerate(tokenizer.bytes_of_tokens(bpe))}
    np.testing.assert_allclose(got.matrix[ids[b" casa"]], [1, 0])
    np.testing.assert_allclose(got.matrix[ids[b"x"]], [0, 1])
    assert not got.known[ids[b"q"]]


def test_token_vectors_have_a_row_for_each_id_also_those_that_are_not_used():
    bpe = byte_tokenizer(["casa"], 4)
    tree = json.loads(bpe.backend_tokenizer.to_str())
    vocab = tree["model"]["vocab"]
    vocab["ĠÄ"] = len(vocab) + 10  # as in vocabularies that leave ids out
    tree["model"]["merges"].append(["Ġ", "Ä"])
    gaps = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tree)))
    words = Words({"casa": 1}, {"casa": 0}, unit_vectors(np.array([[1.0]]), np.ones(1, bool)))
    assert len(token_vectors(gaps, words).matrix) == tokenizer.num_ids(gaps) > len(gaps)


def test_wechsel_finds_the_translations_of_planted_words():
    """Words are letters; the target's vectors are the source's, rotated and permuted."""
    both = Vocabularies(byte_tokenizer(["casa"], 4), byte_tokenizer(["casar"], 5))
    letters, rng = "abcdefghijklmnopqrst", np.random.default_rng(0)
    order = rng.permutation(20)
    known = np.ones(20, bool)
    source_vectors = unit_vectors(rng.normal(size=(20, 8)), known)
    rotation_DD, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    indices = {letter: index for index, letter in enumerate(letters)}
    source = Words(dict.fromkeys(letters, 1), indices, source_vectors)
    translation = {letters[index]: letters[order[index]] for index in range(20)}
    target_matrix = np.empty((20, 8))
    target_matrix[order] = source_vectors.matrix @ rotation_DD
    target = Words(dict.fromkeys(letters, 1), indices, unit_vectors(target_matrix, known))
    dictionary = [(letter, translation[letter]) for letter in letters[:12]]
    eye = np.eye(len(both.source_tokens), dtype=np.float32)
    got = wechsel_filler(both, target, source, dictionary).rows(eye)
    for letter in letters:  # includes letters that are not in the dictionary
        row = got[both.target_tokens.index(translation[letter].encode())]
        assert both.source_tokens[row.argmax()] == letter.encode()
        assert row.sum() == pytest.approx(1, abs=1e-4)
    with pytest.raises(AlignError, match="no line of align.dictionary"):
        wechsel_filler(both, target, source, [("unknown", "words")])


def test_neighbours_equal_the_slow_softmax():
    rng = np.random.default_rng(0)
    own = unit_vectors(rng.normal(size=(30, 6)), rng.random(30) > 0.2)
    other = unit_vectors(rng.normal(size=(40, 6)), rng.random(40) > 0.2)
    got = neighbours(own, other).toarray()
    for row in range(30):
        if not own.known[row]:
            assert not got[row].any()
            continue
        cosines = [own.matrix[row] @ other.matrix[c] if other.known[c] else -9 for c in range(40)]
        nearest = np.argsort(cosines)[-10:]
        weights = np.exp(np.array(cosines)[nearest] / 0.1)
        np.testing.assert_allclose(got[row, nearest], weights / weights.sum(), rtol=1e-4)
        assert np.count_nonzero(got[row]) == 10


def test_vectors_follow_the_seed_and_rare_tokens_have_none():
    ids = np.random.default_rng(0).integers(0, 20, 5000)
    ids[17] = 25
    first, second = (train_vectors(lambda: cut(ids, 5000, -1), 30, 3, 2, 5) for _ in range(2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert first.known.tolist() == [True] * 20 + [False] * 10
    np.testing.assert_allclose(np.linalg.norm(first.matrix[:20], axis=1), 1, rtol=1e-5)
    centred = first.centred()
    assert abs(centred.matrix[:20].mean(0)).max() < abs(first.matrix[:20].mean(0)).max()
    assert not centred.matrix[20:].any()


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 70), st.sampled_from([2, 7, 1000]))
def test_sentences_are_the_documents_of_the_first_tokens(ids, num_tokens, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gportuguese.align.vectors._SENTENCE", size)
        got = [sentence.tolist() for sentence in cut(np.array(ids, int), num_tokens, end=0)]
    assert [id for sentence in got for id in sentence] == [id for id in ids[:num_tokens] if id]
    assert all(0 < len(sentence) <= size for sentence in got)
    if size > len(ids):  # one sentence per document
        assert len(got) == sum(1 for each in "".join(map(str, ids[:num_tokens])).split("0") if each)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama tied"])
@pytest.mark.parametrize("padding", [0, 10])
def test_shared_rows_are_copied_and_the_others_are_the_mean(vocabularies, kind, padding):
    torch.manual_seed(0)
    source, target = vocabularies.source, vocabularies.target
    model = gpt2() if kind == "gpt2" else llama(tied=kind == "llama tied")
    model.resize_token_embeddings(len(source) + padding)
    old = model.get_input_embeddings().weight.detach().clone()
    old_head = model.get_output_embeddings().weight.detach().clone()
    fillers = [rows.copied(vocabularies.source_ids), rows.mean(len(target))]
    kinds = put_rows(model, make_room(model, vocabularies), fillers)
    new, new_head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert new.shape[0] == len(target) == model.config.vocab_size
    by_bytes = {token: id for id, token in enumerate(vocabularies.source_tokens)}
    mean, mean_head = old[: len(source)].mean(0), old_head[: len(source)].mean(0)
    for id, token in enumerate(vocabularies.target_tokens):
        if token in by_bytes:
            assert kinds[id] == "copied"
            torch.testing.assert_close(new[id], old[by_bytes[token]], rtol=0, atol=0)
            torch.testing.assert_close(new_head[id], old_head[by_bytes[token]], rtol=0, atol=0)
        else:
            assert kinds[id] == "mean"
            torch.testing.assert_close(new[id], mean)
            torch.testing.assert_close(new_head[id], mean_head)
    assert (new is new_head) == (kind != "llama")
    assert 256 < int((kinds == "copied").sum()) < len(target)


def test_a_head_bias_moves_with_its_tokens(vocabularies):
    from transformers import PhiConfig, PhiForCausalLM

    source_size = len(vocabularies.source_tokens)
    for tied in (False, True):
        sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
        config = PhiConfig(
            vocab_size=source_size, intermediate_size=32, tie_word_embeddings=tied, **sizes
        )
        model = PhiForCausalLM(config)
        with torch.no_grad():
            model.lm_head.bias.copy_(torch.arange(source_size))
        fillers = [rows.copied(vocabularies.source_ids), rows.mean(len(vocabularies.target_tokens))]
        put_rows(model, make_room(model, vocabularies), fillers)
        ids = torch.from_numpy(vocabularies.source_ids)
        wanted = torch.where(ids >= 0, ids, (source_size - 1) / 2).float()
        torch.testing.assert_close(model.lm_head.bias.data, wanted)


def test_a_tokenizer_larger_than_its_model_is_rejected(overrides_of_nano, tmp_path):
    from gportuguese import causal_lm

    model, bpe = causal_lm.load_with_tokenizer("package:english-nano")
    bpe.add_tokens(["<extra>"])
    model.save_pretrained(tmp_path / "base")
    tokenizer.save(bpe, tmp_path / "base")
    config = load_config(None, (*overrides_of_nano, f"align.base={tmp_path / 'base'}"))
    with pytest.raises(
        causal_lm.ModelError, match="4097 entries, but its model has only 4096 rows"
    ):
        Pipeline(config).build("align", init_world(config.runtime))


PLANTED = 120  # tokens of each language


@pytest.fixture(scope="module")
def planted():
    """Two languages with the same topics but other tokens: `n` in one is `order[n]` in the other."""
    rng = np.random.default_rng(0)
    topics = rng.permutation(PLANTED).reshape(8, -1)
    order = rng.permutation(PLANTED)

    def text(number):
        draws = np.random.default_rng(number)
        return np.concatenate([draws.choice(topics[draws.integers(8)], 12) for _ in range(2500)])

    return order, text(1), order[text(2)]


def test_learn_rotation_maps_the_target_onto_the_source_for_planted_languages(planted):
    order, source_ids, target_ids = planted
    own, other = (
        train_vectors(lambda ids=ids: cut(ids, len(ids), -1), PLANTED, 0, 20, 5).centred()
        for ids in (target_ids, source_ids)
    )
    pairs = np.stack([order[:30], np.arange(30)], 1)  # target id, source id
    every = np.arange(PLANTED)
    rotation_DD, _ = learn_rotation(own, other, pairs, every, every)
    cosines = (own.matrix @ rotation_DD) @ other.matrix.T
    right = cosines[order, every]  # pairs that were not given are near each other too
    assert right[30:].mean() > 0.5
    assert cosines.mean() < 0.2


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.binary(min_size=1, max_size=4), min_size=1, unique=True),
    st.lists(st.binary(min_size=1, max_size=4), min_size=1, unique=True),
)
def test_every_token_gets_a_row_and_different_bytes_never_share_a_copy(source, target):
    source_ids = shared_rows(source, target)
    source_VD = np.eye(len(source), dtype=np.float32)
    fillers = [rows.copied(source_ids), rows.gaussian(len(target), 0)]
    got = rows.fill(torch.from_numpy(source_VD), fillers).numpy()
    assert np.isfinite(got).all()
    copies = [id for id in source_ids.tolist() if id >= 0]
    assert len(set(copies)) == len(copies)


# mistakes of public implementations with byte-level tokens

TORN = [
    b"\xc3\xa7",
    b"\xa7\xc3",
    b" \xc3",
    b"\xa3o",
    b"\xc3\xa7\xc3\xa3o",
]  # three are invalid UTF-8
WORDS = [b"casa", b" casa", b"Casa", b" Casa", b"1998", b" 1998", b"),", b" ),"]


def tokenizer_of(tokens, num_bytes=256):
    """A tokenizer of bytes, these tokens (merged one byte at a time), and end of text."""
    entries = [tokenizer.stand_ins_of(bytes([byte])) for byte in range(num_bytes)]
    merges = []
    for token in map(tokenizer.stand_ins_of, tokens):
        for length in range(1, len(token)):
            if token[: length + 1] not in entries:
                entries.append(token[: length + 1])
                merges.append((token[:length], token[length]))
    entries.append(tokenizer.END_OF_TEXT)
    return tokenizer.make_tokenizer({entry: id for id, entry in enumerate(entries)}, merges)


@pytest.fixture(scope="module")
def odd():
    return Vocabularies(tokenizer_of([*TORN[:3], *WORDS[::2]]), tokenizer_of([*TORN, *WORDS]))


def test_tokens_that_are_invalid_utf8_stay_distinct(odd):
    """deepfocus 1.0.1 decodes tokens before it compares them, so these all become U+FFFD."""
    torn = [id for id, t in enumerate(odd.target_tokens) if "\ufffd" in t.decode(errors="replace")]
    assert len(torn) > 128
    copied = odd.source_ids[torn]
    assert [odd.target_tokens[id] in odd.source_tokens for id in torn] == (copied >= 0).tolist()
    assert len(set(copied[copied >= 0])) == (copied >= 0).sum()
    rows_VD = pieces_filler(odd).rows(np.eye(odd.shape[1], dtype=np.float32))
    assert len({tuple(rows_VD[id]) for id in torn}) == len(torn)


def test_a_leading_space_makes_a_different_token(odd):
    """wechsel 0.0.4 strips the space; the `token_vectors` test covers the vectors."""
    ids = {odd.target_tokens[row]: int(id) for row, id in enumerate(odd.source_ids)}
    for token in WORDS:
        is_shared = token in odd.source_tokens
        assert (ids[token] >= 0) == is_shared
        assert not is_shared or odd.source_tokens[ids[token]] == token


def test_pieces_split_the_bytes_and_not_their_stand_ins(odd):
    """mergekit tokenizes the stand-in characters as text, which splits each into its UTF-8 bytes."""
    weights = pieces_filler(odd).rows(np.eye(odd.shape[1], dtype=np.float32))
    row = weights[odd.target_tokens.index("ção".encode())]
    assert {odd.source_tokens[id]: float(row[id]) for id in row.nonzero()[0]} == {
        b"\xc3\xa7": 0.25,
        b"\xc3": 0.25,
        b"\xa3": 0.25,
        b"o": 0.25,
    }


def test_a_source_that_lacks_bytes_and_end_of_text_leaves_rows_to_the_next_filler():
    """SmolLM2, for example, has no tokens for bytes that UTF-8 never uses."""
    source, target = tokenizer_of(WORDS, num_bytes=0xF5), tokenizer_of([*WORDS, b"a\xff"])
    source.eos_token = None
    both = Vocabularies(source, target)
    fillers = [rows.copied(both.source_ids), pieces_filler(both), rows.mean(both.shape[0])]
    kinds = np.array(["copied", "pieces", "mean"])[rows.assign(fillers)]
    lacking = [id for id, token in enumerate(both.target_tokens) if max(token) >= 0xF5]
    assert len(lacking) == 12
    assert set(kinds[lacking]) == {"mean"}
    assert "mean" not in set(np.delete(kinds, lacking))
    filled = rows.fill(torch.eye(both.shape[1]), fillers)
    torch.testing.assert_close(filled[lacking], torch.full_like(filled[lacking], 1 / both.shape[1]))


# calibration


def token_batches(num=3, length=16, vocab=64):
    ids = np.random.default_rng(0).integers(0, vocab, (num, 2, length + 1))
    return [(torch.from_numpy(x[:, :-1]), torch.from_numpy(x[:, 1:])) for x in ids]


@pytest.mark.parametrize("bias", [False, True])
def test_move_along_mean_adds_the_move_to_the_logits_at_the_mean(bias):
    head, mean_D, move_V = torch.nn.Linear(16, 64, bias), torch.randn(16), torch.randn(64)
    with torch.no_grad():
        before = head(mean_D)
        move_along_mean(head, mean_D, move_V)
        torch.testing.assert_close(head(mean_D) - before, move_V, atol=1e-5, rtol=1e-5)


def test_mean_probabilities_equal_the_slow_mean():
    head, hidden_ND = torch.nn.Linear(16, 64), torch.randn(700, 16)
    slow = sum(torch.softmax(head(row), 0) for row in hidden_ND) / 700
    torch.testing.assert_close(mean_probabilities(head, hidden_ND).float(), slow, check_dtype=False)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "head with bias"])
def test_calibrated_probabilities_match_the_token_frequencies(kind):
    torch.manual_seed(0)
    model, counts_V = small(kind), np.random.default_rng(1).integers(0, 50, 64)
    with torch.no_grad():  # gives the hidden states a large mean, as in trained models
        if kind == "gpt2":
            model.transformer.ln_f.bias.normal_(std=4.0)
        if kind == "llama":
            model.model.embed_tokens.weight.add_(torch.randn(16))
    is_fixed_V = np.arange(64) < 5
    before = {name: p.clone() for name, p in model.state_dict().items()}
    batches = token_batches()
    divergences = calibrate(model, batches, counts_V, is_fixed_V)

    seen = np.where(counts_V == 0, 0.1, counts_V)
    frequencies = seen / seen.sum()
    with torch.no_grad():
        rows = torch.cat([model(ids).logits for ids, _ in batches]).flatten(0, 1)
    given = rows.softmax(1).mean(0).numpy()
    left = float((frequencies * np.log(frequencies / given)).sum())
    assert divergences[0] > 0.2
    assert left == pytest.approx(divergences[-1], abs=1e-5)
    assert left < divergences[0] / 3
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    embeddings = {n for n, p in before.items() if "wte" in n or "embed_tokens" in n}
    heads = {"lm_head.bias"} if kind == "head with bias" else {"lm_head.weight"}
    assert changed == heads | (embeddings if model.config.tie_word_embeddings else set())
    for name in changed:
        torch.testing.assert_close(after[name][:5], before[name][:5], atol=0, rtol=0)


def test_a_harmful_update_is_reverted():
    """Tied rows are short here, and the mean is small, so the update changes the rows too much."""
    torch.manual_seed(0)
    model = small("llama tied")
    before = {name: p.clone() for name, p in model.state_dict().items()}
    counts_V = np.random.default_rng(1).integers(0, 50, 64)
    first, second = calibrate(model, token_batches(), counts_V, np.zeros(64, bool))
    assert second >= first
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_a_model_that_caps_its_logits_is_not_calibrated():
    model = small("capped logits")
    before = {name: p.clone() for name, p in model.state_dict().items()}
    assert calibrate(model, token_batches(), np.ones(64), np.zeros(64, bool)) == []
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


@pytest.mark.usefixtures("built_stages")
def test_the_stage_calibrates_all_rows_but_literals_unless_it_is_off(overrides_of_nano):
    def rows_of(num_tokens):
        overrides = (*overrides_of_nano, "align.method=pieces")
        config = load_config(None, (*overrides, f"align.calibration_tokens={num_tokens}"))
        made = Pipeline(config).build("align", init_world(config.runtime))
        table = pq.read_table(made.folder / "sources.parquet")
        tokens = {*table["bytes"].to_pylist(), *tokenizer.bytes_of_tokens(load_nano_tokenizer())}
        literal = np.array([is_literal(token, tokens) for token in table["bytes"].to_pylist()])
        literal &= np.array([id is not None for id in table["source_id"].to_pylist()])
        literal[-1] = True  # end of text
        return (
            causal_lm.load(made.folder).lm_head.weight.detach(),
            literal,
            made.facts["calibration"],
        )

    plain, literal, none = rows_of(0)
    moved, _, divergences = rows_of(2048)
    assert none == []
    assert divergences[2] < divergences[1] < divergences[0]
    same = (plain == moved).all(1).numpy()
    np.testing.assert_array_equal(same, literal)


def load_nano_tokenizer():
    return causal_lm.load_with_tokenizer("package:english-nano")[1]


# the stage


@pytest.fixture
def overrides_of_nano(tiny_overrides):
    """The tiny run with the package's English base."""
    return (*tiny_overrides, "align.base=package:english-nano", "align.calibration_tokens=1024")


@pytest.fixture
def resources(tmp_path):
    """Text in another language and a dictionary, as files."""
    documents, words = tmp_path / "source.jsonl.gz", tmp_path / "dictionary.tsv"
    with gzip.open(documents, "wt", encoding="utf-8") as file:
        for number in range(60):
            file.write(json.dumps({"text": sentence(number, 120)}) + "\n")
    lines = {f"{word}\t{word}" for word in sentence(0, 50).split() if word.isalpha()}
    words.write_text("\n".join(sorted(lines)), encoding="utf-8")
    return (f"align.source_documents={documents}", f"align.dictionary={words}")


@pytest.mark.parametrize("method", ["gaussian", "pieces", "focus", "wechsel", "bridge"])
def test_every_method_builds_the_same_files_twice(
    overrides_of_nano, resources, tiny_stages, tmp_path, method
):
    built = []
    for number in (1, 2):
        shutil.copytree(tiny_stages, tmp_path / str(number))
        overrides = (
            *overrides_of_nano,
            f"align.method={method}",
            *resources,
            f"runtime.artifacts_dir={tmp_path / str(number)}",
        )
        config = load_config(None, overrides)
        built.append(Pipeline(config).build("align", init_world(config.runtime)))
    first, second = built
    assert first.digest == second.digest
    for name in ("model.safetensors", "sources.parquet", "examples.md"):
        assert first.manifest["files"][name] == second.manifest["files"][name]
    table = pq.read_table(first.folder / "sources.parquet")
    kinds = table["row"].to_pylist()
    plain = [kind for kind, token in zip(kinds, table["bytes"].to_pylist(), strict=True)
             if len(token) == 1 or token.strip().isdigit()]  # fmt: skip
    assert set(plain) == {"copied"}
    assert len(plain) >= 256
    assert sum(first.facts["rows"].values()) == len(kinds)
    assert set(kinds) == set(first.facts["rows"])
    assert first.facts["rows"].get(first.facts["method"], 0) > 0
    text = (first.folder / "examples.md").read_text(encoding="utf-8")
    assert text.count("## ") == len(set(kinds))
    assert (first.folder / "map.png").stat().st_size > 10_000


def test_the_map_shows_every_kind_and_its_labels_do_not_overprint(tmp_path, monkeypatch, writer):
    figures = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: figures.append(self) or real(self, *a, **k)
    )
    both = Vocabularies(writer.tokenizer, writer.tokenizer)
    source_VD = writer.model.get_input_embeddings().weight.detach().numpy()
    target_VD = source_VD.copy()
    kinds = np.full(len(source_VD), "copied")
    kinds[1000:3000], kinds[3000:] = "mean", "focus"
    target_VD[1000:3000] = source_VD.mean(0)
    target_VD[3000:] = source_VD[3000:].mean(0) + source_VD[3000:] / 9
    draw_map(both, kinds, source_VD, target_VD, "align.method=some", tmp_path / "map.png")
    (axes,) = figures[0].axes
    assert axes.get_title().startswith("align.method=some\n")
    assert "principal component" in axes.get_xlabel()
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == [
        "base model (4,096)",
        "mean (2,000 rows, all equal)",
        "focus (1,096)",
        "copied (1,000)",
    ]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 20
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:number]) == 0, axes.texts[number].get_text()
    assert imread(tmp_path / "map.png").shape == (792, 900, 4)


@pytest.mark.parametrize("keep", [3, 40, 400, -300])
def test_truncated_word_vectors_are_rejected(tmp_path, keep):
    words = [["casa", "mar", "rio"] * 5] * 20
    save_facebook_model(
        FastText(words, vector_size=4, min_count=1, bucket=50), str(tmp_path / "w.bin")
    )
    places, _ = wechsel._read_vectors(tmp_path / "w.bin", ["casa", "rio"])
    assert places == {"casa": 0, "rio": 1}
    whole = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(whole[:keep])
    with pytest.raises(AlignError, match="cannot use the word vectors"):
        wechsel._read_vectors(tmp_path / "w.bin", ["casa"])


def test_word_vectors_of_another_language_are_said_to_be_that(tmp_path):
    (tmp_path / "w.vec").write_text("1 2\nдом 0.5 0.5\n", encoding="utf-8")
    with pytest.raises(AlignError, match="has no vector for any word of the corpus; use vectors"):
        wechsel._read_vectors(tmp_path / "w.vec", ["casa"])


def test_auto_tries_the_methods_whose_files_are_given():
    assert candidates(AlignConfig()) == ["pieces", "focus"]
    assert candidates(AlignConfig(dictionary="x")) == ["pieces", "focus"]
    assert candidates(AlignConfig(source_documents="x")) == ["pieces", "focus", "bridge"]
    both = AlignConfig(source_documents="x", dictionary="x")
    assert candidates(both) == ["pieces", "focus", "wechsel", "bridge"]


def test_target_counts_cover_the_training_text_with_end_of_text(overrides_of_nano):
    config = load_config(None, overrides_of_nano)
    pipeline = Pipeline(config)
    stored = pipeline.build("tokens", init_world(config.runtime))
    target = tokenizer.load(pipeline.open("tokenizer").folder)
    both = Vocabularies(causal_lm.load_with_tokenizer(config.align.base)[1], target)
    ids = np.asarray(load_ids(stored.folder, "train", stored.facts["dtype"]))
    counts = Resources(config.align, stored, both, 32).target_counts
    np.testing.assert_array_equal(counts, np.bincount(ids, minlength=len(target)))
    assert counts[target.eos_token_id] > 10
    few = Resources(replace(config.align, vector_tokens=1000), stored, both, 32).target_counts
    np.testing.assert_array_equal(few, np.bincount(ids[:1000], minlength=len(target)))


@pytest.mark.usefixtures("built_stages")
def test_auto_picks_the_method_with_the_lowest_loss_on_training_text(
    overrides_of_nano, resources, monkeypatch
):
    """Builds each candidate by name, measures it in a plain loop and compares with `auto`."""
    monkeypatch.setattr("gportuguese.align._TRIAL_TOKENS", 1024)

    def built(method):
        config = load_config(None, (*overrides_of_nano, *resources, f"align.method={method}"))
        pipeline = Pipeline(config)
        return pipeline, pipeline.build("align", init_world(config.runtime))

    def start_of(method):
        pipeline, made = built(method)
        stored, block = pipeline.open("tokens"), pipeline.config.tokens.block_size
        ids = load_ids(stored.folder, "train", stored.facts["dtype"])
        nats = []
        with torch.no_grad():
            model = causal_lm.load(made.folder).eval()
            for inputs, targets in BlockLoader(ids, block, 1, num_blocks=1024 // block):
                logits = model(inputs).logits
                nats.append(functional.cross_entropy(logits[0], targets[0]).item())
        return float(np.mean(nats))

    starts = {method: start_of(method) for method in ("pieces", "focus", "wechsel", "bridge")}
    _, auto = built("auto")
    assert auto.facts["method"] == min(starts, key=starts.get)
    reason = auto.facts["reason"]
    reported = dict(re.findall(r"(\w+) (\d+\.\d+)", reason))
    reported[auto.facts["method"]] = re.search(r"text: (\d+\.\d+) nats", reason)[1]
    assert {m: float(nats) for m, nats in reported.items()} == pytest.approx(starts, abs=2e-3)
    _, chosen = built(auto.facts["method"])
    for name in ("model.safetensors", "sources.parquet", "examples.md"):
        assert auto.manifest["files"][name] == chosen.manifest["files"][name]


@pytest.mark.usefixtures("built_stages")
def test_auto_skips_a_method_that_has_too_little_text(overrides_of_nano, tmp_path):
    (tmp_path / "little.txt").write_text("Only this.", encoding="utf-8")
    little = f"align.source_documents={tmp_path / 'little.txt'}"
    config = load_config(None, (*overrides_of_nano, "align.method=auto", little))
    facts = Pipeline(config).build("align", init_world(config.runtime)).facts
    assert facts["method"] in ("pieces", "focus")
    assert "bridge" not in facts["reason"]


@pytest.mark.parametrize("method", ["auto", "focus", "wechsel", "bridge"])
def test_without_gensim_nothing_is_built_and_the_package_is_named(
    overrides_of_nano, resources, monkeypatch, capsys, tmp_path, method
):
    monkeypatch.setitem(sys.modules, "gensim", None)  # as if it were not installed
    assert gpt_pt("train", *sets((*overrides_of_nano, *resources, f"align.method={method}"))) == 2
    assert "pip install 'gportuguese[vectors]'" in capsys.readouterr().err
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.usefixtures("built_stages")
@pytest.mark.parametrize("method", ["mean", "pieces"])
def test_other_methods_need_no_gensim(overrides_of_nano, resources, monkeypatch, method):
    for name in ("gensim", "gensim.models"):
        monkeypatch.setitem(sys.modules, name, None)
    config = load_config(None, (*overrides_of_nano, f"align.method={method}"))
    assert Pipeline(config).build("align", init_world(config.runtime)).facts["method"] == method


@pytest.mark.usefixtures("built_stages")
def test_auto_does_not_skip_a_method_whose_file_is_faulty(overrides_of_nano, resources, tmp_path):
    (tmp_path / "dictionary.tsv").write_text("a\tb\nonly one word\n", encoding="utf-8")
    config = load_config(None, (*overrides_of_nano, "align.method=auto", *resources))
    with pytest.raises(AlignError, match="dictionary.tsv:2: 'only one word' is not"):
        Pipeline(config).build("align", init_world(config.runtime))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "source_documents=nowhere.jsonl",
            "source_documents=nowhere.jsonl: no documents at .*nowhere.jsonl",
        ),
        ("source_documents=.", "no documents at .: give a .jsonl, .jsonl.gz, .parquet or .txt"),
    ],
)
def test_a_missing_resource_is_an_error_with_exit_code_2(
    overrides_of_nano, section, message, capsys, tmp_path, monkeypatch
):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert (
        gpt_pt("align", *sets((*overrides_of_nano, "align.method=bridge", f"align.{section}"))) == 2
    )
    assert re.search(message, capsys.readouterr().err)


def test_source_documents_may_be_a_pattern(tmp_path):
    for name in ("a.csv", "b.csv", "c.jsonl"):
        (tmp_path / name).write_text("id,text\n", encoding="utf-8")
    section = AlignConfig(method="bridge", source_documents=str(tmp_path / "*.csv"))
    assert resource_files(section) == {"source_documents": [tmp_path / "a.csv", tmp_path / "b.csv"]}


@pytest.mark.usefixtures("built_stages")
def test_a_dictionary_line_that_is_not_a_pair_is_reported(overrides_of_nano, resources, tmp_path):
    (tmp_path / "dictionary.tsv").write_text("a\tb\nonly one word\n", encoding="utf-8")
    config = load_config(None, (*overrides_of_nano, "align.method=bridge", *resources))
    with pytest.raises(AlignError, match="dictionary.tsv:2: 'only one word' is not"):
        Pipeline(config).build("align", init_world(config.runtime))


@pytest.mark.usefixtures("built_stages")
def test_the_digest_covers_the_content_of_files_that_the_method_reads(
    overrides_of_nano, resources, tmp_path
):
    def folder(*more):
        config = load_config(None, (*overrides_of_nano, *resources, *more))
        pipeline = Pipeline(config)
        pipeline.build("tokens", init_world(config.runtime))
        return pipeline.folder("align").name

    mean, bridge = folder("align.method=mean"), folder("align.method=bridge")
    auto, alone = folder("align.method=auto"), folder("align.method=auto", "align.dictionary=null")
    assert len({auto, alone, folder("align.method=focus")}) == 3
    moved = (tmp_path / "dictionary.tsv").rename(tmp_path / "moved.tsv")
    assert folder("align.method=bridge", f"align.dictionary={moved}") == bridge
    assert folder("align.method=auto", f"align.dictionary={moved}") == auto
    moved.write_text("the\to\n", encoding="utf-8")
    assert folder("align.method=bridge", f"align.dictionary={moved}") != bridge
    assert folder("align.method=mean", f"align.dictionary={moved}") == mean


@pytest.mark.usefixtures("built_stages")
def test_too_little_text_is_an_error(overrides_of_nano, tmp_path):
    (tmp_path / "little.txt").write_text("Only this.", encoding="utf-8")
    little = f"align.source_documents={tmp_path / 'little.txt'}"
    config = load_config(None, (*overrides_of_nano, "align.method=bridge", little))
    with pytest.raises(AlignError, match="too little text for vectors: in one language 0 tokens"):
        Pipeline(config).build("align", init_world(config.runtime))


def test_methods_without_the_files_they_need_are_config_errors(overrides_of_nano):
    with pytest.raises(ConfigError, match="bridge needs align.source_documents"):
        load_config(None, (*overrides_of_nano, "align.method=bridge"))
    with pytest.raises(ConfigError, match="wechsel needs align.source_documents and"):
        load_config(None, (*overrides_of_nano, "align.method=wechsel"))
