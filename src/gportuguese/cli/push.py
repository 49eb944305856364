"""`gpt-pt push`: sends an exported folder to the Hub."""

from __future__ import annotations

import argparse
import logging
import shlex

from gportuguese.cli.arguments import Commands, add_command, reject_config_beside
from gportuguese.cli.chosen import chosen_config
from gportuguese.cli.following import command_line, show_following
from gportuguese.cli.output import show
from gportuguese.cli.stage import RUN_FOLDER
from gportuguese.pipeline import Pipeline
from gportuguese.world import init_world

log = logging.getLogger("gportuguese")


def add_to(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    examples = (
        "gpt-pt push artifacts --repo anna/gpt2-pt --dry-run",
        "gpt-pt push artifacts --repo anna/gpt2-pt --private",
    )
    text = "send the exported folder to the Hugging Face Hub"
    push = add_command(commands, "push", text, run, examples)
    push.add_argument("run_folder", nargs="?", metavar="RUN", help=RUN_FOLDER)
    push.add_argument(
        "--repo", required=True, metavar="USER/NAME", help="the repository; created if missing"
    )
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument(
        "--revision", metavar="BRANCH", help="the branch; created if missing (default: main)"
    )
    push.add_argument(
        "--dry-run", action="store_true", help="only list the files that would be sent"
    )


def run(args: argparse.Namespace) -> None:
    """Prints the files, sends them, and prints the path of the receipt."""
    if args.run_folder is not None:
        from gportuguese import locate

        reject_config_beside(args.run_folder, args.config, args.set)
        folder = locate.find_stage(args.run_folder, "export")
    else:
        config = chosen_config(args)
        pipeline = Pipeline(config)
        # sending must not start hours of training
        pipeline.built_folder("train", command_line("train", args))
        folder = pipeline.build("export", init_world(config.runtime)).folder
    from gportuguese import push

    log.info("export: %s", folder)
    where = {"private": args.private, "revision": args.revision}
    show(push.listing(push.plan(folder, args.repo), args.repo, **where))
    if args.dry_run:
        words = ["gpt-pt", "push", str(folder), "--repo", args.repo]
        words += ["--private"] if args.private else []
        words += ["--revision", args.revision] if args.revision else []
        show_following([shlex.join(words)])
        return
    receipt = push.push(folder, args.repo, **where)
    show(f"sent {len(receipt.sent)} files: {receipt.url}")
    show(str(push.write_receipt(folder, receipt)))
    show_following([f"gpt-pt generate {args.repo} '...'"])
