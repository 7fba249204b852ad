"""What can be trained: the three networks, each with its settings and its own body."""

import importlib
from typing import Any

from kling.presets import get_preset

from . import config

# stage: (its settings, "module:function taking (settings, preset)")
STAGES = {
    "dit": (config.TrainRun, "train.trainer:train_dit"),
    "text": (config.TextRun, "train.text:train_text"),
    "vae": (config.VAERun, "train.vae:train_vae"),
}


def start(where: str, run: Any) -> None:
    """Import a stage's body and run it."""
    preset = get_preset(run.preset)
    module, _, function = where.partition(":")
    getattr(importlib.import_module(module), function)(run, preset)
