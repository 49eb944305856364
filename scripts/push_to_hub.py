"""Pushes an exported folder to the Hugging Face Hub: `gpt-pt push`, for those who look here for it.

    hf auth login
    python scripts/push_to_hub.py artifacts/export-... --repo user/gpt2-small-portuguese --dry-run
    python scripts/push_to_hub.py artifacts/export-... --repo user/gpt2-small-portuguese

Sends nothing that the repository holds already, so it can be run again after an interruption. The
receipt lies beside the folder. HF_ENDPOINT names another Hub.
"""

import sys

from gportuguese.cli import main

if __name__ == "__main__":
    main(["push", *sys.argv[1:]])
