"""Compares the engine with `Writer.write`; tests the API with OpenAI's client and hostile requests."""

import contextlib
import copy
import json
import math
import signal
import socket
import threading
import time
from dataclasses import replace

import httpx
import openai
import pytest
import torch

from gportuguese.generation import GenerateError, Sampling, Writer
from gportuguese.generation.text import TextStream, TokenTexts
from gportuguese.serve import Engine, Limits, ServeError, model_name, run
from gportuguese.serve import connection as connections
from gportuguese.serve.engine import BusyError, Job
from tests.live_server import serving, serving_process, slow_down

PROMPTS = ["The history of the city", "", "In 1961, the United States of"]
GREEDY = Sampling(max_new_tokens=24, top_k=1)
SAMPLINGS = [
    GREEDY,
    Sampling(max_new_tokens=17, seed=5, top_k=40, temperature=0.8),
    Sampling(max_new_tokens=30, seed=6, top_k=0, top_p=0.9, repetition_penalty=1.3),
    Sampling(max_new_tokens=20, top_k=1, repetition_penalty=1.5),
]


def write_together(engine, writer, requests):
    """Submits `(prompt, sampling)` requests together; returns their texts and last pieces."""
    texts, ends, done = [""] * len(requests), [None] * len(requests), threading.Semaphore(0)

    def job(index, prompt, sampling):
        def deliver(piece):
            texts[index] += piece.text
            if piece.finish is not None:
                ends[index] = piece
                done.release()

        return Job(writer.prompt_ids(prompt), sampling, deliver)

    engine.submit([job(index, *request) for index, request in enumerate(requests)])
    for _ in requests:
        assert done.acquire(timeout=60)
    return texts, ends


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_batch_gives_the_same_texts_as_one_by_one(writer, llama, kind):
    writer = {"gpt2": writer, "llama": llama}[kind]
    requests = [(prompt, sampling) for prompt in PROMPTS for sampling in SAMPLINGS]
    # five rows for twelve texts: rows leave and join at every length
    with Engine(writer, Limits(max_concurrent=5)) as engine:
        together, _ = write_together(engine, writer, requests)
        alone = [write_together(engine, writer, [request])[0][0] for request in requests]
    assert together == alone
    assert alone == [writer.write(prompt, sampling) for prompt, sampling in requests]


def test_a_cancelled_text_leaves_the_batch_and_the_others_continue(writer):
    with Engine(writer, Limits(max_concurrent=2, max_queue=1)) as engine:
        started = threading.Event()
        long_job = Job(
            writer.prompt_ids("A"), Sampling(max_new_tokens=250, seed=1), lambda _: started.set()
        )
        engine.submit([long_job])
        assert started.wait(30)
        long_job.cancel()
        texts, _ = write_together(engine, writer, [("He was born", GREEDY)])
        wait_for(lambda: engine.num_running == 0)
    assert texts[0] == writer.write("He was born", GREEDY)


def test_jobs_that_do_not_all_fit_are_all_rejected(writer):
    engine = Engine(writer, Limits(max_concurrent=2, max_queue=1))  # not started: all wait
    jobs = [Job([1], GREEDY, lambda _: None) for _ in range(4)]
    with pytest.raises(BusyError):
        engine.submit(jobs)
    engine.submit(jobs[:3])
    with pytest.raises(BusyError):
        engine.submit(jobs[3:])
    assert engine.num_waiting == 3
    with engine:
        pass


def test_a_text_past_its_time_limit_ends(writer):
    with Engine(writer, Limits(time_limit=1e-6)) as engine:
        texts, ends = write_together(engine, writer, [("A", GREEDY)])
    assert texts == [""]
    assert ends[0].finish == "time"


def test_a_failing_step_loses_only_its_own_texts(writer, monkeypatch, caplog):
    with Engine(writer, Limits()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("gportuguese.generation.draw", lambda *_: 1 / 0)
            _, ends = write_together(engine, writer, [("A", GREEDY), ("In", GREEDY)])
        assert [end.finish for end in ends] == ["error", "error"]
        assert "ZeroDivisionError" in caplog.text
        assert write_together(engine, writer, [("A", GREEDY)])[0] == [writer.write("A", GREEDY)]


def test_a_stop_string_ends_the_text_before_it(writer):
    whole = writer.write("The history of the city", GREEDY)
    stop = whole[10:19]
    sampling = replace(GREEDY, stop=(stop, "never \x00"))
    with Engine(writer, Limits()) as engine:
        texts, ends = write_together(engine, writer, [("The history of the city", sampling)])
    assert texts == [whole[: whole.index(stop)]]
    assert (ends[0].finish, ends[0].stop) == ("stop", stop)


class Bytes:
    """A tokenizer in which every byte is a token."""

    def written(self, token):
        return bytes([token])


@pytest.mark.parametrize("text", ["ação 🙂 fim", "abcabd", "ééé"])
def test_pieces_are_whole_characters_and_never_part_of_a_stop(text):
    for stops in ([], ["abd"], ["🙂 f"], ["é!"]):
        stream, pieces = TextStream(Bytes(), stops), []
        for byte in text.encode():
            pieces.append(stream.push_token(byte))
            if stream.stop:
                break
        pieces.append(stream.finish())
        end = min((text.index(stop) for stop in stops if stop in text), default=len(text))
        assert "".join(pieces) == text[:end]


def test_an_incomplete_character_at_the_end_is_dropped():
    stream = TextStream(Bytes(), [])
    assert [stream.push_token(byte) for byte in "é🙂".encode()[:-1]] == ["", "é", "", "", ""]
    assert stream.finish() == ""


def test_tokens_are_named_by_their_text_or_bytes(writer):
    texts = TokenTexts(writer.tokenizer)
    half = writer.tokenizer.convert_tokens_to_ids("Ã")
    assert texts.name(half) == "bytes:\\xc3"
    assert texts.name(writer.tokenizer.eos_token_id) == "<|endoftext|>"
    assert texts.written(writer.tokenizer.eos_token_id) == b""


# ---- the server


@pytest.fixture(scope="module")
def url(writer):
    with serving(writer) as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(url, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | headers
    return httpx.post(f"{url}/v1/completions", content=content, headers=headers, timeout=60)


@pytest.mark.parametrize("temperature", [0, 1e-40])
def test_greedy_completion_equals_generate(client, writer, temperature):
    answer = client.completions.create(
        model="nano", prompt=PROMPTS[0], max_tokens=24, temperature=temperature, echo=True
    )
    assert answer.choices[0].text == PROMPTS[0] + writer.write(PROMPTS[0], GREEDY)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == len(writer.prompt_ids(PROMPTS[0]))
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert client.models.list().data[0].id == "nano"


def test_stream_equals_whole_and_counts(client):
    options = {"model": "nano", "prompt": ["He was", "In"], "n": 2, "seed": 3, "max_tokens": 12}
    extra = {"extra_body": {"top_k": 20, "repetition_penalty": 1.1}}
    whole = client.completions.create(**options, **extra)
    texts, ends, usage = [""] * 4, [None] * 4, None
    for chunk in client.completions.create(
        **options, **extra, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert len(set(texts)) == 4  # each choice has a seed of its own
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_a_prompt_may_be_token_ids(client, writer):
    ids = writer.prompt_ids(PROMPTS[0])
    texts = [
        client.completions.create(model="nano", prompt=prompt, temperature=0, echo=True)
        for prompt in (ids, [ids], PROMPTS[0])
    ]
    assert len({answer.choices[0].text for answer in texts}) == 1


def test_a_token_that_only_the_tokenizer_knows_loses_no_other_text(writer):
    """Some fine-tunings add a token to the tokenizer and no row to the model."""
    bpe = copy.deepcopy(writer.tokenizer)
    bpe.add_tokens(["[PAD]"])
    writer = Writer(writer.model, bpe, writer.device)
    with pytest.raises(GenerateError, match=r"no row for the token '\[PAD\]' of the prompt"):
        writer.write("A [PAD]", GREEDY)
    with serving(writer) as url:
        for prompt in ("A [PAD]", [writer.num_rows]):
            answer = httpx.post(f"{url}/v1/completions", json={"prompt": prompt})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "prompt"
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "A", "max_tokens": 2})
        assert answer.status_code == 200


def test_a_job_that_cannot_start_gets_its_answer(writer, monkeypatch):
    with Engine(writer, Limits()) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("gportuguese.serve.engine._Row", lambda *_: 1 / 0)
            _, ends = write_together(engine, writer, [("A", GREEDY)])
        assert [end.finish for end in ends] == ["error"]
        assert write_together(engine, writer, [("A", GREEDY)])[0] == [writer.write("A", GREEDY)]


def test_logprobs_are_the_models_own(client, writer):
    answer = client.completions.create(
        model="nano", prompt="He was born in", max_tokens=5, temperature=0, logprobs=4
    )
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.text_offset[1] == len(found.tokens[0])
    ids = torch.tensor([writer.prompt_ids("He was born in")])
    with torch.no_grad():
        logprobs_V = writer.model(ids).logits[0, -1].log_softmax(-1)
    top = logprobs_V.topk(4)
    names = [writer.tokenizer.decode([token]) for token in top.indices]
    assert found.top_logprobs[0] == pytest.approx(
        dict(zip(names, top.values.tolist(), strict=True)), abs=1e-4
    )
    assert found.token_logprobs[0] == pytest.approx(top.values[0].item(), abs=1e-4)
    assert math.exp(found.token_logprobs[0]) <= 1


def plain_logprobs(writer, ids):
    """The log-probabilities `[T-1]` of all tokens except the first, from one forward pass."""
    with torch.no_grad():
        logprobs_TV = writer.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logprobs_TV.gather(-1, torch.tensor(ids[1:]).unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
@pytest.mark.parametrize("kind", ["text", "ids"])
def test_an_echoed_prompt_has_its_log_probabilities(client, writer, kind, max_tokens):
    text = "The café in Coração 🙂, said Ana. " * 9  # longer than one chunk of positions
    ids = writer.prompt_ids(text)
    answer = client.completions.create(
        model="nano",
        prompt=text if kind == "text" else ids,
        max_tokens=max_tokens,
        temperature=0,
        logprobs=3,
        echo=True,
    )
    choice, found = answer.choices[0], answer.choices[0].logprobs
    greedy = Sampling(max_new_tokens=max_tokens, top_k=1)
    assert choice.text == text + writer.write(text, greedy)
    assert choice.finish_reason == "length"
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == max_tokens
    lengths = {len(ids) + max_tokens}
    assert {len(values) for values in found.model_dump().values()} == lengths
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    wanted = plain_logprobs(writer, ids)
    assert found.token_logprobs[1 : len(ids)] == pytest.approx(wanted.tolist(), abs=1e-4)
    for value, top in zip(found.token_logprobs[1:], found.top_logprobs[1:], strict=True):
        assert len(top) == 3
        assert value <= max(top.values())
    # every token of whole characters is at its offset in the text
    assert found.text_offset[0] == 0
    assert found.text_offset == sorted(found.text_offset)
    for name, offset in zip(found.tokens, found.text_offset, strict=True):
        if not name.startswith("bytes:"):
            assert choice.text[offset:].startswith(name)


def test_an_echo_is_streamed_with_its_log_probabilities(client):
    options = {"model": "nano", "prompt": ["He was born in", "A 🙂"], "max_tokens": 4, "seed": 1}
    options |= {"temperature": 0, "echo": True, "logprobs": 2}
    whole = client.completions.create(**options)
    texts = ["", ""]
    found = [
        {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []} for _ in "ab"
    ]
    for chunk in client.completions.create(**options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            for name, values in choice.logprobs.model_dump().items():
                found[choice.index][name] += values
    assert texts == [choice.text for choice in whole.choices]
    assert found == [choice.logprobs.model_dump() for choice in whole.choices]


def test_an_echo_without_logprobs_or_text(client, writer):
    answer = client.completions.create(model="nano", prompt="A 🙂", max_tokens=0, echo=True)
    assert (answer.choices[0].text, answer.choices[0].logprobs) == ("A 🙂", None)
    # an empty prompt starts a document
    answer = client.completions.create(
        model="nano", prompt="", max_tokens=1, temperature=0, echo=True, logprobs=0
    )
    assert answer.choices[0].text == writer.write("", Sampling(max_new_tokens=1, top_k=1))
    assert answer.choices[0].logprobs.tokens[0] == "<|endoftext|>"
    assert answer.choices[0].logprobs.text_offset == [0, 0]


def test_scoring_does_not_disturb_the_texts_being_written(writer):
    scored = "In 1961, the United States of America and the city of New York " * 8
    with Engine(writer, Limits(max_concurrent=3)) as engine:
        done = threading.Semaphore(0)

        def deliver(piece):
            if piece.finish is not None:
                done.release()

        score = Sampling(max_new_tokens=0)
        jobs = [
            Job(writer.prompt_ids(scored)[:200], score, deliver, num_candidates=1, echo=scored)
            for _ in range(4)
        ]
        engine.submit(jobs[:2])
        requests = [(prompt, sampling) for prompt in PROMPTS[:2] for sampling in SAMPLINGS]
        texts, _ = write_together(engine, writer, requests)
        engine.submit(jobs[2:])
        for _ in jobs:
            assert done.acquire(timeout=60)
    assert texts == [writer.write(prompt, sampling) for prompt, sampling in requests]


def test_truncate_prompt_tokens_keeps_only_the_last_tokens(client, writer):
    text = "The city of the river is old. " * 60
    ids = writer.prompt_ids(text)
    assert len(ids) > 256
    answer = client.completions.create(
        model="nano",
        prompt=text,
        max_tokens=6,
        temperature=0,
        echo=True,
        extra_body={"truncate_prompt_tokens": 250},
    )
    greedy = Sampling(max_new_tokens=6, top_k=1)
    kept = writer.tokenizer.decode(ids[-250:])
    assert answer.choices[0].text == kept + "".join(writer.stream(text, greedy, window=True))
    assert answer.usage.prompt_tokens == 250
    assert answer.usage.truncated_prompt_tokens == len(ids) - 250
    with pytest.raises(openai.BadRequestError, match="256 prompt tokens and 6 new ones"):
        client.completions.create(
            model="nano", prompt=text, max_tokens=6, extra_body={"truncate_prompt_tokens": 256}
        )


def test_the_response_names_the_stop_string(client, writer):
    whole = writer.write(PROMPTS[0], GREEDY)
    answer = client.completions.create(
        model="nano", prompt=PROMPTS[0], max_tokens=24, temperature=0, stop=[whole[6:12]]
    )
    assert answer.choices[0].text == whole[: whole.index(whole[6:12])]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason == whole[6:12]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "not JSON"),
        (b'{"prompt": "a\xff"}', "not UTF-8"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"temperature": NaN}', "NaN is not a JSON number"),
        (b'{"temperature": 1e999}', "temperature"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"seed": ' + b"9" * 400 + b"}", "seed"),
        ({"prompt": "\ud800"}, "surrogate"),
        ({"model": "\ud800"}, "surrogate"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"prompt": [10**9]}, "token ids"),
        ({"prompt": [-1]}, "token ids"),
        ({"prompt": "a " * 300}, "do not fit"),
        ({"prompt": "a" * 900_000}, "does not fit"),
        ({"max_tokens": 0}, "max_tokens: 0 is only possible with echo; ask for at least 1"),
        ({"max_tokens": -5}, "max_tokens: -5 is not at least 0"),
        ({"max_tokens": 10**8}, "do not fit"),
        ({"max_tokens": 1.5}, "whole number"),
        ({"max_tokens": "5"}, "expected a number"),
        ({"max_tokens": True}, "expected a number"),
        ({"temperature": -1}, "temperature: -1 is not between 0.0 and 100.0"),
        ({"temperature": [1]}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"n": 100}, "the request asks for 100 texts"),
        ({"n": 10**30}, "n:"),
        ({"prompt": ["a"] * 1000}, "at once"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"logprobs": 1000}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"best_of": 2}, "best_of: this server returns every text that it writes"),
        ({"best_of": "1"}, "best_of"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"suffix": "x"}, "not supported"),
        ({"temprature": 1}, "unknown field"),
    ],
)
def test_invalid_requests_are_rejected_and_the_field_is_named(url, body, part):
    answer = post(url, body)
    assert answer.status_code == 400
    assert part in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("best_of", [None, 1])
def test_fields_without_effect_are_accepted(url, best_of):
    body = {"prompt": "A", "max_tokens": 1, "best_of": best_of, "user": "anna", "suffix": None}
    assert post(url, {**body, "presence_penalty": 0, "logit_bias": {}}).status_code == 200


def test_errors_have_openais_form(client):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="nano", prompt="a", temperature=1000)
    with pytest.raises(openai.NotFoundError, match="this server has 'nano'"):
        client.completions.create(model="gpt-4", prompt="a")


def test_unknown_paths_methods_and_content_types_are_rejected(url):
    assert httpx.get(f"{url}/static/../engine.py").status_code == 404
    assert httpx.get(f"{url}/static/%2e%2e/engine.py").status_code == 404
    assert httpx.get(f"{url}/v1/completions").status_code == 405
    # a form on another site could send this type
    assert post(url, {"prompt": "a"}, **{"Content-Type": "text/plain"}).status_code == 415
    assert httpx.get(f"{url}/nope").json()["error"]["message"] == "GET /nope: Not Found"


def test_a_body_of_ten_megabytes_is_rejected(url):
    answer = post(url, {"prompt": "a" * 10_000_000})
    assert answer.status_code == 413
    assert "1,000,000 bytes" in answer.json()["error"]["message"]
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"


def test_every_response_has_the_security_headers(url):
    for path in ("/", "/static/app.js", "/v1/models", "/nope"):
        headers = httpx.get(url + path).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"
    page = httpx.get(url).text
    assert "<script>" not in page
    assert "style=" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_full_queue_gives_429_and_health_counts_the_texts(writer):
    with serving(writer, max_concurrent=1, max_queue=1) as url, httpx.Client() as client:
        body = {"prompt": "A", "max_tokens": 240, "stream": True, "temperature": 0}
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                answer = stack.enter_context(
                    client.stream("POST", f"{url}/v1/completions", json=body)
                )
                assert answer.status_code == 200
            answer = post(url, {"prompt": "A"})
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "2"
            assert answer.json()["error"]["code"] == "busy"
            assert httpx.get(f"{url}/healthz").json() == {
                "status": "ok",
                "running": 1,
                "waiting": 1,
            }


def test_a_client_that_disconnects_frees_its_row(writer, monkeypatch):
    slow_down(monkeypatch)
    with serving(writer, max_concurrent=1, max_queue=0) as url:
        for stream in (True, False):
            body = json.dumps({"prompt": "A", "max_tokens": 240, "stream": stream}).encode()
            with contextlib.closing(raw(url)) as connection:
                connection.sendall(
                    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                wait_for(lambda: num_running(url) == 1)
            left = time.monotonic()
            wait_for(lambda: num_running(url) == 0)
            assert time.monotonic() - left < 3  # all 240 tokens would take five seconds and more


def num_running(url):
    return httpx.get(f"{url}/healthz").json()["running"]


def raw(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HTT",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["silence", "headers", "body", "unread-body"],
)
def test_a_slow_client_is_disconnected(writer, monkeypatch, start):
    monkeypatch.setattr(connections.TimedProtocol, "request_seconds", 0.5)
    with serving(writer) as url, contextlib.closing(raw(url)) as connection:
        connection.sendall(start)
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 5:
                connection.sendall(b" " if start else b"")
                connection.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if connection.recv(4096) == b"":
                        break
        assert time.monotonic() - started < 3
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_many_idle_connections_block_others_only_briefly(writer, monkeypatch):
    monkeypatch.setattr(connections.TimedProtocol, "request_seconds", 0.5)
    with serving(writer) as url, contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(contextlib.closing(raw(url)))
        assert httpx.get(f"{url}/healthz").status_code == 503
        wait_for(lambda: httpx.get(f"{url}/healthz").status_code == 200)


def test_concurrent_clients_all_get_their_text(url, writer):
    expected = {prompt: writer.write(prompt, GREEDY) for prompt in PROMPTS}
    got = []

    def ask(prompt):
        body = {"prompt": prompt, "max_tokens": 24, "temperature": 0}
        got.append((prompt, post(url, body).json()["choices"][0]["text"]))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in PROMPTS * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 18
    assert all(text == expected[prompt] for prompt, text in got)


def test_the_api_accepts_only_the_right_token(writer):
    with serving(writer, token="segredo") as url:
        assert httpx.get(f"{url}/").status_code == 200
        assert httpx.get(f"{url}/healthz").status_code == 200
        for wrong in ({}, {"Authorization": b"Bearer \xe7"}, {"Authorization": "Basic segredo"}):
            assert httpx.get(f"{url}/v1/models", headers=wrong).status_code == 401
            assert httpx.get(f"{url}/card", headers=wrong).status_code == 401
            assert post(url, {"prompt": "a"}, **wrong).status_code == 401
        right = {"Authorization": "Bearer segredo"}
        assert httpx.get(f"{url}/v1/models", headers=right).status_code == 200
        assert httpx.get(f"{url}/card", headers=right).status_code == 404  # this model has none
        assert post(url, {"prompt": "a"}, **right).status_code == 200


def test_other_host_names_for_this_machine_are_rejected(writer):
    with serving(writer, hosts=("localhost", "127.0.0.1")) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200
        rebound = httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"})
        assert rebound.status_code == 400


def test_invalid_options_are_reported_before_the_model_is_loaded(tmp_path):
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(ServeError, match="a token is required"):
            run(tmp_path, host=host)
    with pytest.raises(ServeError, match="printable ASCII"):
        run(tmp_path, token="senha secreta ç")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1:{port}"):
            run(tmp_path, port=port)
    with pytest.raises(ServeError, match="--max-concurrent >= 1"):
        Limits(max_concurrent=0)
    assert model_name(tmp_path / "train-1" / "model") == "train-1"
    assert model_name(tmp_path / "models--anna--gpt2-pt" / "snapshots" / "ab12") == "anna/gpt2-pt"


@pytest.mark.slow  # starts a separate process, which gets the signal
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_running_texts_finish_after_a_signal(name):
    body = {"prompt": "A", "max_tokens": 30, "stream": True, "temperature": 0}
    with serving_process() as (process, url):
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.Signals[name])
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        process.wait(10)
    assert process.returncode == {"SIGTERM": -signal.SIGTERM, "SIGINT": 0}[name]
