"""The settings of a run, from YAML and the command line. Nothing else knows pydantic."""

from streamseg.config.keys import differing, keys
from streamseg.config.load import load_runs, load_settings, presets
from streamseg.config.settings import EventSettings, InstanceSettings, LaneSettings, ModelSettings, Settings
from streamseg.config.values import parse_background, parse_size, parse_three, parse_vanishing

__all__ = [
    "EventSettings",
    "InstanceSettings",
    "LaneSettings",
    "ModelSettings",
    "Settings",
    "differing",
    "keys",
    "load_runs",
    "load_settings",
    "parse_background",
    "parse_size",
    "parse_three",
    "parse_vanishing",
    "presets",
]
