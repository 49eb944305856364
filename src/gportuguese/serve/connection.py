"""HTTP/1.1 connections that cannot be held open by dribbling bytes.

uvicorn limits how long an idle connection stays, not how long a request takes to arrive nor how
long a client takes to read the answer.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 15.0
"""From the first byte of a request, or the opening of a connection, to the request's last byte."""


class TimedProtocol(H11Protocol):
    """uvicorn's protocol with a time limit for each request and each answer."""

    request_seconds = REQUEST_SECONDS
    answer_seconds = 120.0
    """Longer than the time limit of a text, which ends an answer by itself."""
    _phase = ""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock; hangs up where far more connections are open than can be served."""
        super().connection_made(transport)
        if (
            self.limit_concurrency is not None
            and len(self.connections) > 2 * self.limit_concurrency
        ):
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Reads, and looks whether the request is whole now."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Stops the clock until the next request begins; uvicorn limits the time between."""
        if self.conn.their_state is not h11.SEND_BODY:
            self._set_timer("idle", None)
        super().on_response_complete()
        if self.conn.their_state is h11.DONE:  # a pipelined request is being answered already
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._set_timer("lost", None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._set_timer("request", self.request_seconds)
        elif self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY):
            self._set_timer("answer", self.answer_seconds)

    def _set_timer(self, phase: str, seconds: float | None) -> None:
        """Starts the limit of a phase, unless it is running: more bytes buy no more time."""
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._hang_up)

    def _hang_up(self) -> None:
        self.transport.abort()  # not close(), which would wait for a client that does not read
