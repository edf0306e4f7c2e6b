"""Settings: the args of `serve_config.yaml`; `args.py` has them all, `model_args.py` those that each model has."""

from serve_app.settings.args import DEFAULT_MODEL, ENVIRONMENT, STATE_DIRECTORY, Settings
from serve_app.settings.modes import LogFormat, OffloadMode, PristineMode, Profile, RetentionMode
from serve_app.settings.values import HASHED, wrong_values

__all__ = [
    "DEFAULT_MODEL",
    "ENVIRONMENT",
    "HASHED",
    "STATE_DIRECTORY",
    "LogFormat",
    "OffloadMode",
    "PristineMode",
    "Profile",
    "RetentionMode",
    "Settings",
    "wrong_values",
]
