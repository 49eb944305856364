"""The configuration of a run: schema, loading and checks."""

from gportuguese.config.loading import (
    as_tree,
    asset_path,
    checked,
    config_of,
    load_config,
    resolve_path,
)
from gportuguese.config.methods import METHODS
from gportuguese.config.schema import (
    AlignConfig,
    Architecture,
    Config,
    ConfigError,
    CorpusConfig,
    DumpConfig,
    EvaluateConfig,
    PhaseConfig,
    RuntimeConfig,
    TokenizerConfig,
    TokensConfig,
    TrainConfig,
    UserError,
)
from gportuguese.config.shipped import shipped_configs

__all__ = [
    "METHODS",
    "AlignConfig",
    "Architecture",
    "Config",
    "ConfigError",
    "CorpusConfig",
    "DumpConfig",
    "EvaluateConfig",
    "PhaseConfig",
    "RuntimeConfig",
    "TokenizerConfig",
    "TokensConfig",
    "TrainConfig",
    "UserError",
    "as_tree",
    "asset_path",
    "checked",
    "config_of",
    "load_config",
    "resolve_path",
    "shipped_configs",
]
