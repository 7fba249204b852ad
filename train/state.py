"""Small files of the one-process stages: a state that is whole or not there, and lines of metrics."""

import json
from pathlib import Path

import torch


def save_state(path: Path, content: dict) -> None:
    """Written beside, then renamed: a kill or a full disk leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        torch.save(content, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_state(path: Path) -> dict | None:
    """None when there is none. Only tensors and plain values are unpickled."""
    return torch.load(path, weights_only=True) if path.exists() else None


def append_line(path: Path, record: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
