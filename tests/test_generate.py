"""Compares texts with transformers' `generate()`, and runs the real command."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gportuguese import cli
from gportuguese.config import asset_path
from gportuguese.generation import GenerateError, Sampling
from gportuguese.generation.drawing import log_probabilities
from gportuguese.generation.text import StopCutter

MODEL = str(asset_path("english-nano"))
PROMPTS = ["The history of the city", "In", "", "He was born in the United States of"]
GREEDY = Sampling(max_new_tokens=12, top_k=1)
SAMPLINGS = [
    GREEDY,
    Sampling(max_new_tokens=17, seed=5, top_k=40, temperature=0.8),
    Sampling(max_new_tokens=30, seed=6, top_k=0, top_p=0.9, repetition_penalty=1.3),
    Sampling(max_new_tokens=20, temperature=0, repetition_penalty=1.5),
]


def by_transformers(writer, prompt, sampling):
    """The text that transformers' `generate()` writes."""
    ids = torch.tensor([writer.prompt_ids(prompt)])
    drawn = {
        "do_sample": True,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "temperature": sampling.temperature,
    }
    torch.manual_seed(sampling.seed)
    whole = writer.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=sampling.max_new_tokens,
        repetition_penalty=sampling.repetition_penalty,
        **({"do_sample": False} if sampling.is_greedy else drawn),
    )
    return writer.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_texts_equal_those_of_transformers(writer, llama, kind, sampling):
    writer = {"gpt2": writer, "llama": llama}[kind]
    for prompt in PROMPTS:
        # for an incomplete character at the end, transformers shows a replacement character
        wanted = by_transformers(writer, prompt, sampling).rstrip("\ufffd")
        assert writer.write(prompt, sampling).rstrip("\ufffd") == wanted


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_batch_of_prompts_gives_the_same_texts_as_one_by_one(writer, sampling):
    prompts = PROMPTS * 5  # more than one batch holds
    rows = list(writer.write_all(prompts, sampling))
    assert [row.text for row in rows] == 5 * [writer.write(prompt, sampling) for prompt in PROMPTS]
    assert {row.num_tokens for row in rows} == {sampling.max_new_tokens}


def test_zero_new_tokens_give_no_text(writer):
    nothing = Sampling(max_new_tokens=0)
    assert writer.write("In", nothing) == ""
    assert [row.text for row in writer.write_all(["In", "A"], nothing)] == ["", ""]


def test_the_seed_determines_the_sample(writer):
    texts = [writer.write("In the", Sampling(seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_next_word_is_one_whole_word(writer):
    word = writer.next_word("He was born in the United")
    assert word.startswith(" ")
    assert len(word.split()) == 1
    assert writer.write("He was born in the United", GREEDY).startswith(word)


def test_a_prompt_longer_than_the_context_is_rejected(writer):
    with pytest.raises(GenerateError, match="do not fit the model's 256 positions"):
        writer.write("a " * 300, Sampling())


def test_window_cuts_the_beginning_of_a_long_prompt(writer):
    greedy = Sampling(max_new_tokens=6, top_k=1)
    ids = writer.tokenizer("The city " * 300)["input_ids"]
    shorter = writer.tokenizer.decode(ids[-250:])
    long_text = writer.tokenizer.decode(ids)
    assert len(writer.tokenizer(shorter)["input_ids"]) == 250
    got = "".join(writer.stream(long_text, greedy, window=True))
    (row,) = writer.write_all([long_text], greedy, window=True)
    assert got == writer.write(shorter, greedy) == row.text
    with pytest.raises(GenerateError, match="--window"):
        list(writer.write_all([long_text], greedy))


def test_a_stop_string_ends_the_text_and_is_not_shown(writer):
    greedy = Sampling(max_new_tokens=20, top_k=1)
    whole = writer.write("The history of the city", greedy)
    stop = whole.split()[3]
    wanted = whole[: whole.index(stop)]
    stopped = Sampling(max_new_tokens=20, top_k=1, stop=("never there", stop))
    assert writer.write("The history of the city", stopped) == wanted
    (row,) = writer.write_all(["The history of the city"], stopped)
    assert (row.text, row.finish) == (wanted, "stop")
    assert row.num_tokens < 20


@given(
    st.lists(st.text("ab ", max_size=3), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3)),
)
def test_cutting_pieces_at_a_stop_equals_cutting_letter_by_letter(pieces, stop):
    whole = read = "".join(pieces)
    for end in range(1, len(whole) + 1):
        if complete := [text for text in stop if whole[:end].endswith(text)]:
            read = whole[: end - max(map(len, complete))]
            break
    cutter, got = StopCutter(tuple(stop)), ""
    for piece in pieces:
        got += cutter.push(piece)
        if cutter.stop is not None:
            break
    assert got + cutter.finish() == read


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"temperature": -1.0}, "temperature must be at least 0, not -1.0"),
        ({"temperature": float("nan")}, "temperature must be at least 0, not nan"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, not -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, not 0.0"),
        ({"seed": 2**63}, "seed must be between"),
        ({"stop": ("",)}, "a stop string must not be empty"),
    ],
)
def test_invalid_sampling_options_are_rejected(option, message):
    with pytest.raises(GenerateError, match=message) as caught:
        Sampling(**option)
    assert "Sampling(" not in str(caught.value)


def test_log_probabilities_equal_those_of_softmax():
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    found = log_probabilities(logits, [3, 1, 4, 1, 5], 2)
    for row, token, (value, top) in zip(logits, [3, 1, 4, 1, 5], found, strict=True):
        wanted = row.softmax(0).log()
        assert value == pytest.approx(wanted[token].item(), abs=1e-6)
        assert [token for token, _ in top] == row.argsort(descending=True)[:2].tolist()
        assert top[0][1] == pytest.approx(wanted.max().item(), abs=1e-6)


# ---- the real command


def test_next_word_and_unfinished_streams_exit_without_errors(writer):
    """Prompts from standard input, then streams that were closed, not read to the end, or left."""
    code = """
import sys
from gportuguese import cli
from gportuguese.generation import Sampling, Writer
try: cli.main(["generate", sys.argv[1], "--next-word"])
except SystemExit as end: print("exit", end.code)
writer = Writer.load(sys.argv[1], "cpu")
print(writer.next_word("He was born in the United"))
closed = writer.stream("A", Sampling(max_new_tokens=250))
next(closed)
closed.close()
open_at_exit = writer.stream("A", Sampling(max_new_tokens=250))
next(open_at_exit)
for piece in writer.stream("A", Sampling(max_new_tokens=250)):
    sys.exit(7)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, MODEL],
        input=b"He was born in the United\r\n\n  \no rio\n",
        capture_output=True,
        timeout=250,
        check=False,
    )
    born, river = (writer.next_word(prompt) for prompt in ("He was born in the United", "o rio"))
    assert ended.returncode == 7, ended.stderr
    assert ended.stdout.decode() == f"{born}\n{river}\nexit 0\n{born}\n"
    assert b"terminate" not in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_ctrl_c_stops_a_text_immediately():
    command = [sys.executable, "-m", "gportuguese", "generate", MODEL, "A", "--top-k", "0"]
    with subprocess.Popen(
        [*command, "--max-new-tokens", "250"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(2)  # the prompt and the beginning of the text
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in complaints
    assert b"terminate" not in complaints


# ---- its arguments


def generate(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["generate", *words])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_options_may_stand_anywhere(writer, capsys):
    short = ["--max-new-tokens", "5"]
    wanted = {
        prompt: prompt + writer.write(prompt, Sampling(max_new_tokens=5, top_k=1))
        for prompt in ("In", "He was", "--seed")
    }
    for words in (
        [MODEL, "--top-k", "1", *short, "In"],
        ["--top-k", "1", MODEL, *short, "In"],
        [MODEL, "In", *short, "--top-k", "1"],
        [MODEL, "In", *short, "--temperature", "0"],
    ):
        assert generate(capsys, *words) == wanted["In"] + "\n"
    both = generate(capsys, MODEL, "In", "--top-k", "1", "He was", *short)
    assert both == f"{wanted['In']}\n\n{wanted['He was']}\n"
    dashed = generate(capsys, MODEL, *short, "--top-k=1", "--", "--seed")
    assert dashed == wanted["--seed"] + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--temperature", "-1", MODEL, "In"],
            "gpt-pt: temperature must be at least 0, not -1.0\n",
        ),
        (["--top-k", "-3", "absent", "In"], "gpt-pt: top_k must be at least 0, not -3\n"),
        (
            ["--top-p", "2", "absent", "In"],
            "gpt-pt: top_p must be above 0 and at most 1, not 2.0\n",
        ),
        (["--temperature", "nan", "absent", "In"], "temperature must be at least 0, not nan\n"),
        (["--device", "gpu", "absent", "In"], "'gpu' must be auto, cpu, cuda or cuda:N\n"),
        (["--stop", "", "absent", "In"], "gpt-pt: a stop string must not be empty\n"),
        ([MODEL, "--tok-k", "1", "In"], "no option --tok-k; did you mean --top-k?\n"),
        (["--top-k", "1"], "gpt-pt: no train at artifacts; run: gpt-pt train\n"),
    ],
)
def test_errors_name_the_invalid_argument(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["generate", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_wrong_options_are_rejected_before_pytorch_is_loaded():
    code = (
        "import sys; from gportuguese.cli import main\n"
        "try: main(['generate', 'no/such/model', 'In', '--temperature', '-1'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr == "gpt-pt: temperature must be at least 0, not -1.0\n"


def test_answers_as_json_lines(writer, capsys):
    words = ["--max-new-tokens", "5", "--temperature", "0", "--json"]
    for prompts in (["In"], ["In", "He said:\n“"]):
        lines = generate(capsys, MODEL, *prompts, *words).splitlines()
        wanted = [writer.write(p, Sampling(max_new_tokens=5, top_k=1)) for p in prompts]
        assert [json.loads(line) for line in lines] == [
            {"prompt": prompt, "text": text, "tokens": 5, "finish": "length"}
            for prompt, text in zip(prompts, wanted, strict=True)
        ]
    line = json.loads(generate(capsys, MODEL, "In", "--json", "--next-word"))
    assert line == {"prompt": "In", "text": writer.next_word("In")}


def test_on_a_terminal_prompts_are_bold(capsys, monkeypatch):
    words = [MODEL, "In", "He was", "--max-new-tokens", "2", "--temperature", "0"]
    plain = generate(capsys, *words)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = generate(capsys, *words)
    bold = "\x1b[1m{}\x1b[0m"
    assert shown == plain.replace("He was", bold.format("He was")).replace(
        "In", bold.format("In"), 1
    )


def test_standard_input_that_is_not_utf8_is_rejected():
    command = [sys.executable, "-m", "gportuguese", "generate", MODEL]
    ended = subprocess.run(command, input=b"o rio \xff\n", capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, b"")
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith(b"gpt-pt: ")]
    assert b"is not UTF-8 text" in line  # the line, or all of the input, by the locale
    assert b"Traceback" not in ended.stderr
