"""Parses and checks a JSON body; rejects invalid requests with a reason."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from gportuguese.generation import Sampling

_MAX_STOPS = 4
_MAX_STOP_CHARACTERS = 100
_MAX_CANDIDATES = 20
# OpenAI fields that are accepted only with values that have no effect
_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "suffix": (None, ""),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
}
_NO_LIMIT = 10**9  # the model's own limit is checked with the prompt
_KNOWN = {
    "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "n",
    "best_of", "stop", "stream", "stream_options", "seed", "logprobs", "echo", "truncate_prompt_tokens", "user",
    *_WITHOUT_EFFECT,
}  # fmt: skip


class RefusedError(Exception):
    """A request that gets an error response: an HTTP status and OpenAI's error object."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A checked request: `n` continuations of each prompt."""

    model: str | None
    prompts: tuple[str | tuple[int, ...], ...]
    n: int
    sampling: Sampling
    stream: bool
    include_usage: bool
    logprobs: int | None
    echo: bool
    truncate_prompt_tokens: int | None
    """Read only this many last tokens of each prompt; None rejects prompts that are too long."""


def read_json(body: bytes) -> dict[str, Any]:
    """Parses a body as a JSON object; raises `RefusedError` if it is anything else."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(f"the body is not UTF-8: {error}") from error
    try:
        tree = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise RefusedError("the body is not a JSON object")
    return tree


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def parse_completion(body: bytes) -> CompletionRequest:
    """Parses a completion request; raises `RefusedError` that names the invalid field."""
    fields = _Fields(read_json(body))
    fields.check_names()
    if fields.value("best_of", 1) != 1:
        raise RefusedError(
            "best_of: this server returns every text that it writes, so it accepts only 1; for several "
            "texts, set n",
            param="best_of",
        )
    seed = fields.optional_integer("seed", -(2**63), 2**63 - 1)
    echo = fields.truth("echo")
    sampling = Sampling(
        max_new_tokens=_max_tokens(fields, echo),
        top_k=fields.integer("top_k", 0, 0, _NO_LIMIT),
        top_p=fields.number("top_p", 1.0, 1e-6, 1.0),
        temperature=fields.number("temperature", 1.0, 0.0, 100.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0, 0.01, 100.0),
        seed=secrets.randbits(63) if seed is None else seed,
        stop=_stops(fields.value("stop", [])),
    )
    options = fields.value("stream_options", {})
    if not isinstance(options, dict):
        raise RefusedError("stream_options: expected an object", param="stream_options")
    return CompletionRequest(
        model=fields.text("model"),
        prompts=_prompts(fields.value("prompt", "")),
        n=fields.integer("n", 1, 1, 128),
        sampling=sampling,
        stream=fields.truth("stream"),
        include_usage=options.get("include_usage") is True,
        logprobs=fields.optional_integer("logprobs", 0, _MAX_CANDIDATES),
        echo=echo,
        truncate_prompt_tokens=fields.optional_integer("truncate_prompt_tokens", 1, _NO_LIMIT),
    )


def _max_tokens(fields: _Fields, echo: bool) -> int:
    """`max_tokens`; 0 only with `echo`, for clients that want the probabilities of the prompt alone."""
    number = fields.integer("max_tokens", 16, 0, _NO_LIMIT)
    if number == 0 and not echo:
        raise RefusedError(
            "max_tokens: 0 is only possible with echo; ask for at least 1", param="max_tokens"
        )
    return number


class _Fields:
    """Reads fields of a request by name and type; null means the default."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self._tree = tree

    def check_names(self) -> None:
        for name in self._tree:
            if name not in _KNOWN:
                known = ", ".join(sorted(_KNOWN))
                raise RefusedError(f"{name!r:.80}: unknown field; known: {known}")
        for name, values in _WITHOUT_EFFECT.items():
            if self._tree.get(name) not in values:
                raise RefusedError(
                    f"{name}: not supported by this server; leave it out", param=name
                )

    def value(self, name: str, default: Any) -> Any:
        value = self._tree.get(name)
        return default if value is None else value

    def truth(self, name: str) -> bool:
        value = self.value(name, False)
        if not isinstance(value, bool):
            raise RefusedError(f"{name}: expected true or false, got {value!r:.80}", param=name)
        return value

    def text(self, name: str) -> str | None:
        value = self.value(name, None)
        return None if value is None else _text(value, name)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError(f"{name}: expected a number, got {value!r:.80}", param=name)
        if not low <= value <= high:
            wanted = f"between {low} and {high}" if high < _NO_LIMIT else f"at least {low}"
            raise RefusedError(f"{name}: {value!r:.80} is not {wanted}", param=name)
        return float(value)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.number(name, default, low, high)
        if value != int(value):
            raise RefusedError(f"{name}: expected a whole number, got {value!r}", param=name)
        exact = self.value(name, default)  # not the float, which is rounded above 2^53
        return int(exact)

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        return None if self.value(name, None) is None else self.integer(name, low, low, high)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RefusedError(f"{name}: expected text, got {value!r:.80}", param=name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(f"{name}: lone surrogates are not valid text", param=name) from error
    return value


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Parses one prompt or a list of prompts; each is text or a list of token ids."""
    if isinstance(value, str) or _is_ids(value):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RefusedError("prompt: expected text, token ids, or a list of them", param="prompt")
    return tuple(tuple(item) if _is_ids(item) else _text(item, "prompt") for item in value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(type(item) is int for item in value)


def _stops(value: Any) -> tuple[str, ...]:
    stops = value if isinstance(value, list) else [value]
    texts = tuple(_text(stop, "stop") for stop in stops)
    if len(texts) > _MAX_STOPS or not all(0 < len(t) <= _MAX_STOP_CHARACTERS for t in texts):
        raise RefusedError(
            f"stop: at most {_MAX_STOPS} strings of 1 to {_MAX_STOP_CHARACTERS} characters",
            param="stop",
        )
    return texts
