"""Pushes an exported folder to the Hugging Face Hub, as `gpt-pt push` does.

    hf auth login
    python scripts/push_to_hub.py artifacts/export-... --repo user/gpt2-small-portuguese --dry-run
    python scripts/push_to_hub.py artifacts/export-... --repo user/gpt2-small-portuguese

It skips files that the repository already has, so you can run it again after an interruption. It writes a
receipt beside the folder. HF_ENDPOINT selects another Hub.
"""

import sys

from gportuguese.cli import main

if __name__ == "__main__":
    main(["push", *sys.argv[1:]])
