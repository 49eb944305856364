"""`python -m gportuguese`: the same as `gpt-pt`."""

from gportuguese.cli import main

if __name__ == "__main__":
    main()
