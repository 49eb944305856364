"""`POST /v1/completions`: hands requests to the engine and turns its pieces into OpenAI's JSON."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gportuguese.sampling import GenerateError
from gportuguese.serve.engine import BusyError, Candidates, Engine, Job, Piece
from gportuguese.serve.requests import CompletionRequest, RefusedError

_MAX_SEED = 2**63


@dataclass
class _Choice:
    """The text received for one continuation."""

    job: Job
    text: str = ""
    num_tokens: int = 0
    finish: str | None = None
    stop: str | None = None
    candidates: list[Candidates] = field(default_factory=list)


class Completion:
    """The response to one request, as a whole or as server-sent events."""

    def __init__(self, request: CompletionRequest, model: str, engine: Engine) -> None:
        self.request = request
        self._engine = engine
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._choices: list[_Choice] = []
        self._num_prompt_tokens = 0
        self._num_truncated = 0
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    async def start(self) -> None:
        """Submits the texts to the engine; raises `RefusedError` if it rejects them."""
        request, limits = self.request, self._engine.limits
        num_choices = len(request.prompts) * request.n
        if num_choices > limits.max_concurrent:
            raise RefusedError(
                f"the request asks for {num_choices} texts; this server allows "
                f"{limits.max_concurrent} at once",
                param="n",
            )
        for prompt in request.prompts:
            # long prompts take time to tokenize: keep that out of the event loop
            ids, num_truncated = await asyncio.to_thread(prompt_ids, self._engine, prompt, request)
            self._num_prompt_tokens += len(ids)
            self._num_truncated += num_truncated
            echo = None
            if request.echo:
                is_whole = isinstance(prompt, str) and not num_truncated
                echo = str(prompt) if is_whole else self._engine.texts.whole(ids)
            for _ in range(request.n):
                self._add(ids, echo)
        try:
            self._engine.submit([choice.job for choice in self._choices])
        except BusyError as error:
            raise RefusedError(
                f"the server is busy: {error}; try again in a moment",
                status=429,
                code="busy",
                headers={"Retry-After": "2"},
            ) from error

    def _add(self, ids: list[int], echo: str | None) -> None:
        loop, pieces, index = asyncio.get_running_loop(), self._pieces, len(self._choices)

        def deliver(piece: Piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        seed = (self.request.sampling.seed + index) % _MAX_SEED
        job = Job(
            ids=ids,
            sampling=replace(self.request.sampling, seed=seed),
            deliver=deliver,
            num_candidates=self.request.logprobs,
            echo=echo,
        )
        self._choices.append(_Choice(job))

    def cancel(self) -> None:
        """Cancels all texts."""
        for choice in self._choices:
            choice.job.cancel()

    async def whole(self) -> dict[str, Any]:
        """The response to a client that does not stream."""
        async for _ in self._follow():
            pass
        for choice in self._choices:
            if choice.finish == "error" or (choice.finish == "time" and not choice.num_tokens):
                raise _failure(choice.finish)
        choices = [
            _choice_json(index, choice, choice.text, choice.candidates)
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head, "choices": choices, "usage": self._usage()}

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events: a chunk for every piece, the usage if requested, and `[DONE]`."""
        async for index, piece in self._follow():
            choice = self._choices[index]
            if piece.finish == "error" or (piece.finish == "time" and not choice.num_tokens):
                self.cancel()
                yield _event(_failure(piece.finish).body)
                return
            yield self._chunk([_choice_json(index, choice, piece.text, piece.candidates)])
        if self.request.include_usage:
            yield self._chunk([], usage=self._usage())
        yield "data: [DONE]\n\n"

    async def _follow(self) -> AsyncIterator[tuple[int, Piece]]:
        """Adds each piece to its choice and yields it, until all choices are finished."""
        unfinished = len(self._choices)
        while unfinished:
            index, piece = await self._pieces.get()
            choice = self._choices[index]
            choice.text += piece.text
            choice.num_tokens += piece.num_tokens
            choice.candidates += piece.candidates
            choice.finish, choice.stop = piece.finish, piece.stop
            unfinished -= piece.finish is not None
            yield index, piece

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        return _event({**self._head, "choices": choices, **more})

    def _usage(self) -> dict[str, int]:
        written = sum(choice.num_tokens for choice in self._choices)
        return {
            "prompt_tokens": self._num_prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self._num_prompt_tokens + written,
            "truncated_prompt_tokens": self._num_truncated,
        }


def prompt_ids(
    engine: Engine, prompt: str | tuple[int, ...], request: CompletionRequest
) -> tuple[list[int], int]:
    """The tokens of a prompt, and how many were cut off at the beginning on request.

    Raises `RefusedError` if they do not fit the model.
    """
    limit = request.truncate_prompt_tokens
    if isinstance(prompt, str):
        # certainly too long: do not tokenize it
        if limit is None and len(prompt) > engine.context * engine.texts.longest:
            raise RefusedError(
                f"the prompt of {len(prompt)} characters does not fit the model's "
                f"{engine.context} tokens",
                param="prompt",
                code="context_length_exceeded",
            )
        try:
            ids = engine.writer.prompt_ids(prompt)
        except GenerateError as error:
            raise RefusedError(str(error), param="prompt") from error
    else:
        ids = list(prompt)
        highest = min(len(engine.texts), engine.writer.num_rows) - 1
        if not all(0 <= token <= highest for token in ids):
            raise RefusedError(f"prompt: token ids must be between 0 and {highest}", param="prompt")
    kept = ids if limit is None else ids[-limit:]
    num_new = request.sampling.max_new_tokens
    if len(kept) + num_new > engine.context:
        raise RefusedError(
            f"{len(kept)} prompt tokens and {num_new} new ones do not fit the model's "
            f"{engine.context}; shorten one of them",
            param="prompt" if len(kept) >= engine.context else "max_tokens",
            code="context_length_exceeded",
        )
    return kept, len(ids) - len(kept)


def _failure(finish: str) -> RefusedError:
    if finish == "time":
        message = "the time limit passed before the text was started; try again in a moment"
        return RefusedError(message, status=503, code="late", headers={"Retry-After": "5"})
    return RefusedError("the model failed; see the server's log", status=500, code="failed")


def _event(tree: dict[str, Any]) -> str:
    return f"data: {json.dumps(tree)}\n\n"


def _choice_json(
    index: int, choice: _Choice, text: str, candidates: Sequence[Candidates]
) -> dict[str, Any]:
    """A choice in OpenAI's format. `stop_reason` is our addition: the stop string or time limit."""
    has_logprobs = choice.job.num_candidates is not None
    return {
        "index": index,
        "text": text,
        "logprobs": _logprobs_json(candidates) if has_logprobs else None,
        # clients know only "stop" and "length"
        "finish_reason": "length" if choice.finish == "time" else choice.finish,
        "stop_reason": "time_limit" if choice.finish == "time" else choice.stop,
    }


def _logprobs_json(candidates: Sequence[Candidates]) -> dict[str, Any]:
    return {
        "tokens": [found.name for found in candidates],
        "token_logprobs": [found.logprob for found in candidates],
        "top_logprobs": [None if found.top is None else dict(found.top) for found in candidates],
        "text_offset": [found.offset for found in candidates],
    }
