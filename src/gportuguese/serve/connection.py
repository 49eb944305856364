"""HTTP/1.1 connections with time limits against slow clients.

uvicorn closes idle connections, but does not limit how long a request takes to arrive or how long a
client takes to read the response.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 15.0
"""Time limit for receiving a request, from its first byte or from the opening of the connection."""


class TimedProtocol(H11Protocol):
    """uvicorn's protocol with a time limit for each request and each response."""

    request_seconds = REQUEST_SECONDS
    answer_seconds = 120.0
    """Must be longer than the engine's time limit per text."""
    _phase = ""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer; closes the connection if far too many are open."""
        super().connection_made(transport)
        if (
            self.limit_concurrency is not None
            and len(self.connections) > 2 * self.limit_concurrency
        ):
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Reads data and updates the timer, because the request may now be complete."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Stops the timer until the next request; uvicorn limits the idle time."""
        if self.conn.their_state is not h11.SEND_BODY:
            self._set_timer("idle", None)
        super().on_response_complete()
        if self.conn.their_state is h11.DONE:  # the next pipelined request is already running
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer."""
        self._set_timer("lost", None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._set_timer("request", self.request_seconds)
        elif self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY):
            self._set_timer("answer", self.answer_seconds)

    def _set_timer(self, phase: str, seconds: float | None) -> None:
        """Starts the timer of a phase. If it is running, it stays: more bytes give no extra time."""
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._hang_up)

    def _hang_up(self) -> None:
        self.transport.abort()  # not close(), which would wait for a client that does not read
