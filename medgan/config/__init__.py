"""The configuration: one strict YAML file for a domain, read by ``train`` and ``compare`` alike.

An unknown key, a wrong type or a value out of range is an :class:`~medgan.errors.InputFault` that names the dotted
path, the value and the nearest known key. Only the safe YAML loader is used: a file can hold no code.
"""

from medgan.config.comparison import (
    ArmConfig,
    ArmPart,
    AugmentConfig,
    CompareConfig,
    ExternalConfig,
    NetworkConfig,
    SweepConfig,
    TuneConfig,
)
from medgan.config.data import DataConfig, IntensityConfig, PreprocessConfig, Triple
from medgan.config.keys import describe
from medgan.config.reading import load_config, parse_config
from medgan.config.training import ModelConfig, TrainingConfig
from medgan.config.whole import Config, TrackingConfig

__all__ = [
    "ArmConfig",
    "ArmPart",
    "AugmentConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "ExternalConfig",
    "IntensityConfig",
    "ModelConfig",
    "NetworkConfig",
    "PreprocessConfig",
    "SweepConfig",
    "TrackingConfig",
    "TrainingConfig",
    "Triple",
    "TuneConfig",
    "describe",
    "load_config",
    "parse_config",
]
