"""Takes a GPT-2 into Portuguese, or any language with a Wikipedia.

>>> from gportuguese import generate, load_config, make_learner, train
>>> config = load_config("demo")  # or "pilot", or a YAML file
>>> learn = make_learner(config)  # a fastai `Learner`, for work by hand
>>> run = train(config)  # doctest: +SKIP
>>> generate(run.folder / "model", "Lisboa é a capital de")  # doctest: +SKIP
"""

TYPE_CHECKING = False  # without importing typing: see cli
if TYPE_CHECKING:
    from gportuguese.api import evaluate, generate, load_model, train
    from gportuguese.config import Config, ConfigError, UserError, load_config
    from gportuguese.interactive import make_learner
    from gportuguese.pipeline import Pipeline
    from gportuguese.world import init_world

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "Pipeline",
    "UserError",
    "evaluate",
    "generate",
    "init_world",
    "load_config",
    "load_model",
    "make_learner",
    "train",
]

_MODULES = {
    "Config": "config",
    "ConfigError": "config",
    "Pipeline": "pipeline",
    "UserError": "config",
    "evaluate": "api",
    "generate": "api",
    "init_world": "world",
    "load_config": "config",
    "load_model": "api",
    "make_learner": "interactive",
    "train": "api",
}
"""Where the names live. They are imported on first use: some load PyTorch, and `gpt-pt` must be able to
handle Ctrl+C from the first moment."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
