import io
import math
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from gportuguese import progress
from gportuguese.callbacks import Meter
from gportuguese.epochs import EpochTime
from gportuguese.progress import busy, clock, track, tracked


@pytest.fixture
def terminal(monkeypatch, caplog):
    """Makes standard error a terminal of 80 columns; yields the text written to it."""
    written = io.StringIO()
    screen = Console(file=written, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(progress, "console", lambda: screen)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level("INFO", "gportuguese"):
        yield written


def test_an_inner_bar_hides_the_outer_one_and_both_disappear_at_the_end(terminal):
    with busy("outer"):
        with track("inner", 4) as advance:
            advance(1, "loss 5.000")
            shown = [task.description for task in progress._bars.tasks if task.visible]
            assert shown == ["inner"]
            progress._bars.refresh()
        assert [task.description for task in progress._bars.tasks if task.visible] == ["outer"]
    assert progress._bars is None
    lines = terminal.getvalue()
    assert "inner" in lines
    assert "25 %, loss 5.000, 0:00 left" in lines


def test_an_error_removes_the_bar(terminal):
    with pytest.raises(ValueError, match="stop"), track("inner", 4):
        raise ValueError("stop")
    assert progress._bars is None


def _stop_after(*_):
    raise ValueError("stop")


def test_an_error_removes_the_bars_of_suspended_generators(terminal):
    def suspended():
        with track("inner", 4):
            yield

    inner = suspended()
    with (
        pytest.raises(ValueError, match="stop"),
        busy("outer"),
        tracked("items", "abc", 3) as items,
    ):
        _stop_after(next(items), next(inner))
    assert progress._bars is None
    inner.close()
    items.close()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


INTERRUPTED = """
from gportuguese import cli
from gportuguese.cli import status
from gportuguese.config import UserError
from gportuguese.progress import track

def items():
    with track("inner", 4):
        yield

def run(args):
    for _ in items():
        raise {error}

status.run = run
cli.main(["status"])
"""


@pytest.mark.parametrize(("error", "code"), [("KeyboardInterrupt", 130), ("UserError('stop')", 2)])
def test_a_command_shows_the_cursor_again_before_it_reports_an_error(error, code):
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", INTERRUPTED.format(error=error)]
    environment = {**os.environ, "TERM": "xterm-256color"}
    run = subprocess.run(words, stderr=theirs, env=environment, timeout=60, check=False)
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert run.returncode == code, said
    assert said.index("\x1b[?25l") < said.rindex("\x1b[?25h") < said.index("gpt-pt: ")
    assert "Traceback" not in said


def test_without_a_terminal_there_is_one_line_per_interval(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level("INFO", "gportuguese"), track("train", 100) as advance:
        for second in range(1, 41):
            now[0] = second
            left = math.nan if second < 20 else 465.0
            advance(1, "loss 5", description="all 1/2", seconds_left=left)
    assert caplog.messages == [
        "all 1/2: 15 %, loss 5",
        "all 1/2: 30 %, loss 5, 7:45 left",
    ]


def test_the_time_left_follows_from_the_mean_rate_by_default(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level("INFO", "gportuguese"), tracked("corpus", range(4), 4) as numbers:
        for number in numbers:
            now[0] += 10
            assert number < 4
    assert caplog.messages == ["corpus: 50 %, 0:20 left", "corpus: 100 %, 0:00 left"]


def test_what_an_earlier_run_did_does_not_count_for_the_rate(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level("INFO", "gportuguese"), track("file", 100) as advance:
        now[0] += 20
        advance(60, resumed=True)
        now[0] += 20
        advance(20)
    assert caplog.messages == ["file: 60 %", "file: 80 %, 0:40 left"]


def test_of_an_unknown_total_neither_share_nor_time_left_is_shown(monkeypatch, caplog, terminal):
    with track("file", 0) as advance:
        advance(5, "5 MB")
        (task,) = progress._bars.tasks
        assert (task.total, task.fields["note"]) == (None, "5 MB")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with track("file", 0) as advance:
        advance(5, "5 MB")
    assert caplog.messages == ["file: 5 MB"]


def test_clock_always_shows_hours_unless_it_is_short():
    assert [clock(seconds) for seconds in (59.6, 20911)] == ["0:01:00", "5:48:31"]
    assert [clock(seconds, short=True) for seconds in (0, 465, 20911)] == [
        "0:00",
        "7:45",
        "5:48:31",
    ]


class Steps:
    """The attributes of fastai's learner that the meter reads."""

    def __init__(self, num_blocks: int) -> None:
        self.dls = SimpleNamespace(
            train=SimpleNamespace(epoch_blocks=num_blocks, block_size=10), valid=range(3)
        )
        self.opt = SimpleNamespace(hypers=[{"lr": 1e-3}])
        self.yb, self.training, self.epoch, self.iter = [torch.zeros(1, 10)], True, 0, 0


def test_start_up_and_validation_do_not_distort_the_time_left(monkeypatch):
    now, notes = [0.0], []
    monkeypatch.setattr("gportuguese.callbacks.meter.time.monotonic", lambda: now[0])
    learn = Steps(num_blocks=6)
    table = SimpleNamespace(phase="all", times=[EpochTime(0, 0.0, 30.0)])
    guard = SimpleNamespace(running_loss=5.0)
    meter = Meter(
        lambda *args, **options: notes.append((*args, options)), table, guard, num_epochs=2
    )
    meter.learn = learn
    meter.before_fit()
    for learn.epoch in range(2):
        meter.before_train()
        for learn.iter in range(6):
            now[0] += 100 if learn.iter == 0 else 2  # the first step includes start-up
            meter.after_batch()
        learn.training = False
        meter.before_validate()
        for _ in range(3):
            now[0] += 10
            meter.after_batch()
        meter.after_validate()
        learn.training = True
    assert notes[0][1] == "loss 5.000, lr 1.0e-03"
    assert math.isnan(notes[0][2]["seconds_left"])
    # 10 tokens in 2 s; 8 + 2 more steps of 2 s each and two validations of 30 s
    assert notes[1] == (
        10,
        "loss 5.000, lr 1.0e-03, 5 tokens/s",
        {"description": "all 1/2", "seconds_left": 10 * 2 + 2 * 30},
    )
    assert notes[-1][2] == {"description": "all 2/2", "seconds_left": 30}
