"""The metrics of `/metrics`: counts and times in Prometheus' text format."""

from __future__ import annotations

from collections import defaultdict

from gportuguese.serve.engine import Engine


class Telemetry:
    """The metrics of one server; all methods run in the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counts = defaultdict[str, float](float)

    def count(self, name: str, number: float = 1, **labels: str) -> None:
        """Adds to a counter. Labels must need no escaping."""
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        self._counts[f"gpt_pt_{name}" + (f"{{{inside}}}" if labels else "")] += number

    def time(self, name: str, seconds: float) -> None:
        """Adds a time to a sum and a count, whose ratio is the mean."""
        self.count(f"{name}_seconds_sum", seconds)
        self.count(f"{name}_seconds_count")

    def page(self) -> str:
        """The current metrics as text in the format of Prometheus."""
        now = {
            "gpt_pt_texts_waiting": self._engine.num_waiting,
            "gpt_pt_texts_running": self._engine.num_running,
        }
        lines = (f"{name} {value}\n" for name, value in {**self._counts, **now}.items())
        return "".join(sorted(lines))
