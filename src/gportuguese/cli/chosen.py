"""The config and the model that the arguments of a command choose."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from gportuguese.artifacts import MANIFEST
from gportuguese.cli.arguments import reject_config_beside
from gportuguese.cli.following import command_line
from gportuguese.config import Config, load_config
from gportuguese.pipeline import Pipeline

log = logging.getLogger("gportuguese")


def chosen_config(args: argparse.Namespace) -> Config:
    """The config of --config and --set: a YAML file, a shipped config, or that of a stage's folder."""
    if args.config is not None and (args.config / MANIFEST).is_file():
        from gportuguese import locate

        return locate.config_of_run(locate.absolute(args.config), tuple(args.set))
    return load_config(args.config, tuple(args.set))


def model_folder(args: argparse.Namespace) -> Path:
    """The model's folder, given by a folder, a Hub id, or the config of a run. Logs the folder."""
    if args.model is not None:
        from gportuguese import locate

        reject_config_beside(args.model, args.config, args.set)
        return locate.find_model(args.model)
    trained = Pipeline(chosen_config(args)).built_folder("train", command_line("train", args))
    folder = trained / "model"
    log.info("model: %s", folder)
    return folder
