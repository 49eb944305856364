import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import Pipeline, init_world, load_config
from gportuguese.callbacks.epoch_table import read_epochs
from gportuguese.config import asset_path
from gportuguese.generate import GenerateError, Sampling, Writer, until
from gportuguese.report import clock, epochs_markdown


@pytest.fixture(scope="module")
def writer():
    return Writer.load(asset_path("english-nano"), "cpu")


def test_report_repeats_the_table_and_measures_both_sets(tiny_overrides):
    config = load_config(None, (*tiny_overrides, "train.valid_tokens=null", "evaluate.tokens=null"))
    pipeline = Pipeline(config)
    artifact = pipeline.build("evaluate", init_world(config.runtime))
    report = json.loads((artifact.folder / "report.json").read_text(encoding="utf-8"))
    rows = read_epochs(artifact.folder / "epochs.csv")
    # the loaded weights measure what the last epoch's validation did
    assert report["measures"]["valid"]["loss"] == pytest.approx(rows[-1].loss, abs=1e-6)
    assert report["measures"]["valid"]["bits_per_byte"] == pytest.approx(
        rows[-1].bits_per_byte, abs=1e-6
    )
    assert report["measures"]["test"]["loss"] > 0
    assert report["prompts"] == artifact.facts["prompts"] == ["o rio"]
    table = (artifact.folder / "epochs.md").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("| after ... epochs | phase | train loss | loss | accuracy (%)")
    assert len(table) == 2 + len(rows)
    assert table[-1].startswith(f"| 3 | all | {rows[-1].train_loss:.4f} | {rows[-1].loss:.4f} |")
    assert epochs_markdown(artifact).splitlines() == table
    assert (artifact.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "**o rio**" in (artifact.folder / "samples.md").read_text(encoding="utf-8")


def test_clock_reads_as_the_published_column():
    assert clock(5 * 3600 + 48 * 60 + 31) == "5:48:31"
    assert clock(59.6) == "0:01:00"


def test_greedy_equals_the_slow_loop(writer):
    prompt = "The history of the city"
    ids = torch.tensor([writer.tokenizer(prompt)["input_ids"]])
    for _ in range(12):
        with torch.no_grad():
            ids = torch.cat([ids, writer.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    text = writer.write(prompt, Sampling(max_new_tokens=12, top_k=1))
    assert prompt + text == writer.tokenizer.decode(ids[0], skip_special_tokens=True)


def test_seed_decides_the_sample(writer):
    texts = [writer.write("In the", Sampling(seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_next_word_is_one_whole_word(writer):
    word = writer.next_word("He was born in the United")
    assert word.startswith(" ")
    assert len(word.split()) == 1
    greedy = writer.write("He was born in the United", Sampling(max_new_tokens=16, top_k=1))
    assert greedy.startswith(word)


def test_prompt_beyond_the_positions_is_refused(writer):
    with pytest.raises(GenerateError, match="do not fit the model's 256 positions"):
        writer.write("a " * 300, Sampling())


PROMPTS = ["The history of the city", "In", "", "He was born in the United States of"]


def test_several_prompts_at_once_equal_each_alone(writer):
    greedy = Sampling(max_new_tokens=12, top_k=1)
    texts, num_tokens = writer.write_all(PROMPTS, greedy)
    assert texts == [writer.write(prompt, greedy) for prompt in PROMPTS]
    numbers = []
    for prompt in PROMPTS:
        list(writer.stream(prompt, greedy, on_end=numbers.append))
    assert num_tokens == sum(numbers) == 48


def test_a_long_prompt_loses_its_beginning_if_asked(writer):
    greedy = Sampling(max_new_tokens=6, top_k=1)
    ids = writer.tokenizer("The city " * 300)["input_ids"]
    shorter = writer.tokenizer.decode(ids[-250:])
    long_text = writer.tokenizer.decode(ids)
    assert len(writer.tokenizer(shorter)["input_ids"]) == 250
    got = "".join(writer.stream(long_text, greedy, window=True))
    assert got == writer.write(shorter, greedy) == writer.write_all([long_text], greedy, True)[0][0]
    with pytest.raises(GenerateError, match="--window"):
        writer.write_all([long_text], greedy)


def test_a_stop_ends_the_text_and_is_not_shown(writer):
    greedy = Sampling(max_new_tokens=20, top_k=1)
    whole = writer.write("The history of the city", greedy)
    stop = whole.split()[3]
    wanted = whole[: whole.index(stop)]
    stopped = Sampling(max_new_tokens=20, top_k=1, stop=("never there", stop))
    assert writer.write("The history of the city", stopped) == wanted
    assert writer.write_all(["The history of the city"], stopped)[0] == [wanted]


@given(
    st.lists(st.text("ab ", max_size=3), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3)),
)
def test_until_equals_reading_letter_by_letter(pieces, stop):
    whole = read = "".join(pieces)
    for end in range(1, len(whole) + 1):
        if complete := [text for text in stop if whole[:end].endswith(text)]:
            read = whole[: end - max(map(len, complete))]
            break
    got = list(until(pieces, tuple(stop)))
    assert "".join(got) == read
    assert all(got)


@pytest.mark.parametrize(
    "option", [{"top_p": 0.0}, {"temperature": 0.0}, {"max_new_tokens": 0}, {"stop": ("",)}]
)
def test_senseless_sampling_is_refused(option):
    with pytest.raises(GenerateError, match="sampling:"):
        Sampling(**option)
