"""Takes a GPT-2 into Portuguese, or any language with a Wikipedia.

In a script, build stages under `if __name__ == "__main__":`, because the worker processes that clean
pages import the script again.

>>> from gportuguese import Pipeline, init_world, load_config
>>> config = load_config("pilot")
>>> model_folder = Pipeline(config).build("train", init_world(config.runtime)).folder / "model"
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gportuguese.config import Config, ConfigError, UserError, load_config
    from gportuguese.pipeline import Pipeline
    from gportuguese.world import init_world

__version__ = "0.1.0"

__all__ = ["Config", "ConfigError", "Pipeline", "UserError", "init_world", "load_config"]

_MODULES = {
    "Config": "config",
    "ConfigError": "config",
    "Pipeline": "pipeline",
    "UserError": "config",
    "init_world": "world",
    "load_config": "config",
}


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that `gpt-pt` can be interrupted from its first moment."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
