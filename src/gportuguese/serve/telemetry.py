"""The metrics of `/metrics`: counts and times in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gportuguese.serve.engine import Engine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Telemetry:
    """The metrics of one server, in their own registry."""

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "gpt_pt_requests", "Requests answered", ("path", "status"), registry=registry
        )
        self.tokens = Counter(
            "gpt_pt_tokens", "Tokens read and generated", ("kind",), registry=registry
        )
        self.first_token_seconds = Histogram(
            "gpt_pt_first_token_seconds",
            "Seconds from the request to its first text",
            buckets=_SECONDS,
            registry=registry,
        )
        self.completion_seconds = Histogram(
            "gpt_pt_completion_seconds",
            "Seconds from the request to its last text",
            buckets=_SECONDS,
            registry=registry,
        )
        waiting = Gauge("gpt_pt_texts_waiting", "Texts in the queue", registry=registry)
        waiting.set_function(lambda: engine.num_waiting)
        running = Gauge("gpt_pt_texts_running", "Texts being generated", registry=registry)
        running.set_function(lambda: engine.num_running)

    def page(self) -> bytes:
        """The current metrics as text."""
        return generate_latest(self._registry)
