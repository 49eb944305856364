"""The configuration of a run: schema, loading and checks."""

from gportuguese.config.formats import FORMATS, ExportFormat
from gportuguese.config.loading import (
    as_tree,
    asset_path,
    checked,
    config_of,
    did_you_mean,
    is_path,
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
    FilterConfig,
    PhaseConfig,
    RuntimeConfig,
    SourceConfig,
    TokenizerConfig,
    TokensConfig,
    TrainConfig,
    UserError,
)
from gportuguese.config.shipped import shipped_configs
from gportuguese.config.sources import DUMP, is_hub_id, is_url, sources_of, uses_dump

__all__ = [
    "DUMP",
    "FORMATS",
    "METHODS",
    "AlignConfig",
    "Architecture",
    "Config",
    "ConfigError",
    "CorpusConfig",
    "DumpConfig",
    "EvaluateConfig",
    "ExportFormat",
    "FilterConfig",
    "PhaseConfig",
    "RuntimeConfig",
    "SourceConfig",
    "TokenizerConfig",
    "TokensConfig",
    "TrainConfig",
    "UserError",
    "as_tree",
    "asset_path",
    "checked",
    "config_of",
    "did_you_mean",
    "is_hub_id",
    "is_path",
    "is_url",
    "load_config",
    "resolve_path",
    "shipped_configs",
    "sources_of",
    "uses_dump",
]
