"""`gpt-pt survey`: what the table of a language should name."""

from __future__ import annotations

import argparse
from pathlib import Path

from gportuguese.cli.arguments import Commands, add_command, count
from gportuguese.cli.output import show


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    text = "show what the table of a language should name: headings, templates, leftovers of a dump"
    survey = add_command(commands, "survey", text, run, takes_config=False)
    survey.add_argument("dump", type=Path, metavar="DUMP", help="file of a pages-articles dump")
    survey.add_argument(
        "--pages",
        type=count,
        default=2000,
        metavar="N",
        help="articles to read (default: %(default)s)",
    )
    survey.add_argument(
        "--names",
        type=count,
        default=40,
        metavar="N",
        help="rows of each list (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the lists."""
    from gportuguese.corpus.survey import survey
    from gportuguese.dump import DumpError

    if not args.dump.is_file():
        raise DumpError(f"no dump at {args.dump}; name a pages-articles .xml or .xml.bz2 file")
    show(survey(args.dump, args.pages, args.names))
