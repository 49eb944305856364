"""Takes a GPT-2 into Portuguese, or any language with a Wikipedia.

In a script, build stages under `if __name__ == "__main__":`, because the worker processes that clean
pages import the script again.

>>> from gportuguese import Pipeline, init_world, load_config
>>> config = load_config("pilot")
>>> model_folder = Pipeline(config).build("train", init_world(config.runtime)).folder / "model"
"""

from gportuguese.config import Config, ConfigError, UserError, load_config
from gportuguese.pipeline import Pipeline
from gportuguese.world import init_world

__version__ = "0.1.0"

__all__ = ["Config", "ConfigError", "Pipeline", "UserError", "init_world", "load_config"]
