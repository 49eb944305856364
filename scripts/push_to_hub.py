"""Pushes an exported folder to the Hugging Face Hub, after saying what will be sent.

    hf auth login
    python scripts/push_to_hub.py artifacts/export-... --repo user/gpt2-small-portuguese --dry-run
    python scripts/push_to_hub.py artifacts/export-... --repo user/gpt2-small-portuguese

Sends nothing that the repository holds already, so it can be run again after an interruption. The
receipt lies beside the folder. HF_ENDPOINT names another Hub.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from gportuguese import UserError


def main() -> int:
    """Pushes, prints the address, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="artifacts/export-...")
    parser.add_argument("--repo", required=True, help="user/name or organization/name")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="branch, made if absent (default: main)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("gportuguese").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when it is imported
    from gportuguese import push

    where = {"private": args.private, "revision": args.revision}
    try:
        print(push.listing(push.plan(args.folder), args.repo, **where), flush=True)
        if args.dry_run:
            return 0
        receipt = push.push(args.folder, args.repo, **where)
        path = push.write_receipt(args.folder, receipt)
    except UserError as error:
        print(f"push_to_hub: {error}", file=sys.stderr)
        return 2
    print(f"sent {len(receipt.sent)} files: {receipt.url}\nreceipt: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
