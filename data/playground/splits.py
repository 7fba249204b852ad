"""Who sees what: seeds never shared between splits, combinations that training never shows."""

import json
from functools import cache
from pathlib import Path

from kling.errors import ConfigError
from kling.prompt.graph import SceneGraph

# First seed of each split; a split owns SPAN of them.
SPLITS = {"train": 0, "val": 1_000_000_000, "bench": 2_000_000_000}
SPAN = 1_000_000_000
Combination = tuple[str, str, str]  # color, shape, action


def seed_of(split: str, number: int) -> int:
    """The seed of a split's clip.

    Raises:
        ConfigError: unknown split, or a number outside the split's range.
    """
    if split not in SPLITS:
        raise ConfigError("unknown split", where=split, fix=f"Choose one of: {', '.join(SPLITS)}")
    if not 0 <= number < SPAN:
        raise ConfigError("a seed outside the split's range", where=str(number), fix=f"Use 0 to {SPAN - 1}")
    return SPLITS[split] + number


def split_of(seed: int) -> str:
    return next(name for name, first in reversed(SPLITS.items()) if seed >= first)


def name_of(seed: int) -> str:
    """File name of a clip without its ending: "train-000000012"."""
    split = split_of(seed)
    return f"{split}-{seed - SPLITS[split]:09d}"


@cache
def held_out() -> frozenset[Combination]:
    """The combinations of held_out.json."""
    rows = json.loads(Path(__file__).with_name("held_out.json").read_text())
    return frozenset((row["color"], row["shape"], row["action"]) for row in rows)


def combinations(graph: SceneGraph) -> frozenset[Combination]:
    """What the graph shows: (color, shape, action) of every agent."""
    nodes = {node.id: node for node in graph.objects}
    return frozenset(
        (node.color or "", node.shape, event.action) for event in graph.events if (node := nodes.get(event.agent))
    )


def shows_held_out(graph: SceneGraph) -> bool:
    return bool(combinations(graph) & held_out())
