"""Runs a command on a terminal of its own and draws its screen as SVG (needs `pip install '.[docs]'`).

    python scripts/screenshot_terminal.py docs/figures/run.svg --moment 'middle.*3/5' -- gpt-pt train

The picture shows the screen at the end, and `run-moment.svg` the first screen that matches `--moment`.
"""

import argparse
import io
import itertools
import os
import pty
import re
import shlex
import struct
import termios
from fcntl import ioctl
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

FONT = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""The web fonts of rich's format: the pictures load nothing from other sites."""


def screen_text(screen: pyte.Screen) -> Text:
    """The screen of a terminal with its colours, without empty lines at the end."""
    lines = []
    for number in range(screen.lines):
        line = Text()
        marks = (screen.buffer[number][column] for column in range(screen.columns))
        for style, run in itertools.groupby(marks, _style):
            line.append("".join(mark.data for mark in run), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def _style(mark: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(mark.fg),
        bgcolor=_colour(mark.bg),
        bold=mark.bold,
        italic=mark.italics,
        underline=mark.underscore,
        reverse=mark.reverse,
    )


def _colour(name: str) -> str:
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def draw(screen: pyte.Screen, path: Path, title: str) -> None:
    """Writes the screen as SVG."""
    console = Console(
        record=True, width=screen.columns, file=io.StringIO(), color_system="truecolor"
    )
    console.print(screen_text(screen))
    code = FONT.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", "DejaVu Sans Mono")
    path.write_text(console.export_svg(title=title, code_format=code), encoding="utf-8")
    print(path)


def main() -> None:
    """Runs the command and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--columns", type=int, default=90)
    parser.add_argument("--moment", metavar="REGEX", help="draw also the first screen that matches")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    screen = pyte.Screen(args.columns, 200)
    stream, title = pyte.ByteStream(screen), shlex.join(args.command)
    screen.draw(f"$ {title}")
    screen.linefeed()
    screen.carriage_return()
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(args.command[0], args.command, {**os.environ, "TERM": "xterm-256color"})
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, args.columns, 0, 0))
    moment = args.moment
    while True:
        try:
            stream.feed(os.read(terminal, 65536))
        except OSError:  # the command has ended
            break
        if moment and re.search(moment, "\n".join(screen.display)):
            draw(screen, args.out.with_stem(f"{args.out.stem}-moment"), title)
            moment = None
    os.waitpid(child, 0)
    draw(screen, args.out, title)


if __name__ == "__main__":
    main()
