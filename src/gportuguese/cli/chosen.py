"""The model that the arguments of `generate` and `serve` choose."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from gportuguese.cli.arguments import reject_config_beside
from gportuguese.config import load_config
from gportuguese.pipeline import Pipeline

log = logging.getLogger("gportuguese")


def model_folder(args: argparse.Namespace) -> Path:
    """The model's folder, given by a folder, a Hub id, or the config of a run. Logs the folder."""
    if args.model is not None:
        from gportuguese import locate

        reject_config_beside(args.model, args.config, args.set)
        return locate.find_model(args.model)
    folder = Pipeline(load_config(args.config, tuple(args.set))).built_folder("train") / "model"
    log.info("model: %s", folder)
    return folder
