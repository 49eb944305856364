"""Callbacks and trackers that a run names: checked early, found, and created. Does not import torch."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gportuguese.config import TrainConfig, UserError

if TYPE_CHECKING:
    from fastai.callback.core import Callback

OBSERVERS = frozenset(
    {
        "fastai.callback.azureml:AzureMLCallback",
        "fastai.callback.comet:CometCallback",
        "fastai.callback.hook:ActivationStats",
        "fastai.callback.progress:CSVLogger",
        "fastai.callback.progress:ProgressCallback",
        "fastai.callback.progress:ShowGraphCallback",
        "fastai.callback.tensorboard:TensorBoardCallback",
        "fastai.callback.wandb:WandbCallback",
        "fastai.learner:Recorder",
    }
)
"""Callbacks that cannot change the weights. All others are part of the digest of `train`."""


class PluginError(UserError):
    """A callback or tracker cannot be used."""


@contextmanager
def without_warnings() -> Iterator[None]:
    """A context for the first import of fastai, which calls torch.jit, and PyTorch deprecates that."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):  # depends on PyTorch's version
            warnings.simplefilter("ignore", category)
        yield


def name_of(callback: Any) -> str:
    """The name of a callback, or of a class of callbacks, as in `train.callbacks`.

    >>> import collections
    >>> name_of(collections.OrderedDict), name_of(collections.Counter())
    ('collections:OrderedDict', 'collections:Counter')
    """
    kind = callback if isinstance(callback, type) else type(callback)
    return f"{kind.__module__}:{kind.__qualname__}"


def digest_settings(names: Iterable[str]) -> dict[str, list[str]]:
    """What callbacks add to the digest of `train`; nothing if all of them only observe.

    >>> digest_settings(["fastai.callback.progress:CSVLogger", "mine:Freeze"])
    {'callbacks': ['mine:Freeze']}
    """
    others = [name for name in names if name not in OBSERVERS]
    return {"callbacks": others} if others else {}


def check_plugins(section: TrainConfig, is_main: bool = True) -> None:
    """Raises `PluginError` if the tracker's package or a named callback is missing.

    Only the main process of torchrun, which has the tracker, logs in to it.
    """
    if section.tracker in ("wandb", "trackio") and not importlib.util.find_spec(section.tracker):
        raise PluginError(
            f"train.tracker={section.tracker} needs the package {section.tracker}: pip install "
            f"'gportuguese[{section.tracker}]', or set train.tracker to tensorboard or none"
        )
    if (
        is_main
        and section.tracker == "wandb"
        and os.environ.get("WANDB_MODE", "online") == "online"
    ):
        import wandb

        try:
            wandb.login()  # on a terminal it asks for the key now, not after hours of other stages
        except wandb.Error as error:
            raise tracker_error("wandb", error) from error
    for name in section.callbacks:
        _find(name)


def tracker_error(package: str, error: Exception) -> PluginError:
    """The error of a tracker that does not start, with what to do."""
    hint = "run `wandb login`, or set WANDB_MODE=offline; " if package == "wandb" else ""
    return PluginError(
        f"train.tracker={package}: {error}; {hint}--set train.tracker=none trains without a tracker"
    )


def check_callbacks(callbacks: Any) -> None:
    """Raises `PluginError` unless these are fastai callbacks, or classes of them, in a list or tuple."""
    with without_warnings():
        from fastai.callback.core import Callback

    if not isinstance(callbacks, (list, tuple)):
        raise PluginError(f"callbacks={callbacks!r}: put callbacks into a list")
    for each in callbacks:
        if not isinstance(each, Callback) and not (
            isinstance(each, type) and issubclass(each, Callback)
        ):
            raise PluginError(f"callbacks: {each!r} is no fastai callback")


def load_callbacks(names: Iterable[str]) -> list[Callback]:
    """Creates the callbacks of `train.callbacks`, in order; imports nothing if there are none.

    Raises `PluginError` that names the entry if it cannot be found or is no callback.
    """
    return [_create(name) for name in names]


def _create(name: str) -> Callback:
    from fastai.callback.core import Callback

    found = _find(name)
    callback = found if isinstance(found, Callback) else found()
    if not isinstance(callback, Callback):
        raise PluginError(f"train.callbacks: {name} returned no fastai callback: {callback!r}")
    return callback


def _find(name: str) -> Any:
    """A callback, or the class or function that creates it; creates nothing."""
    with without_warnings():
        import fastai.basics  # noqa: F401
        from fastai.callback.core import Callback

    where, here = f"train.callbacks: {name}", str(Path.cwd())
    module, _, path = name.partition(":")
    if here not in sys.path:
        sys.path.append(here)  # last, so that no file there hides a package
    try:
        found = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except ImportError as error:
        raise PluginError(
            f"{where}: {error}; the module must be installed, or lie in {here}"
        ) from error
    except AttributeError as error:
        raise PluginError(f"{where}: {error}") from error
    if isinstance(found, Callback):
        return found
    if not callable(found) or (isinstance(found, type) and not issubclass(found, Callback)):
        raise PluginError(f"{where} is no fastai callback")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise PluginError(
            f"{where} cannot be created without arguments ({error}); name a function that returns "
            "the callback"
        ) from error
    return found
