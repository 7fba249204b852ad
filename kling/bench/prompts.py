"""The benchmark's prompts: a fixed list, with what each says and the seed of the clip that shows it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kling import storage
from kling.errors import ConfigError, InputError
from kling.prompt.graph import SceneGraph

PACKAGED = str(Path(__file__).with_name("prompts.json"))


@dataclass(frozen=True, kw_only=True)
class BenchPrompt:
    """One prompt. ``graph`` is what it says, from the grammar that wrote it: a misread prompt is the model's fault."""

    id: str
    prompt: str
    language: str
    seed: int  # of the playground clip that shows it
    plan_seed: int  # with it, the plan made from the prompt is that clip's own, if the prompt is understood
    held_out: bool  # shows a combination of colour, shape and action that training never shows
    graph: SceneGraph

    @property
    def groups(self) -> tuple[tuple[str, str], ...]:
        """The rows of the tables that this prompt counts in."""
        number = len(self.graph.objects)
        many = "1" if number == 1 else "2-3" if number <= 3 else "4-6" if number <= 6 else "7+"
        camera = {f"{move.kind} {move.direction or ''}".strip() for move in self.graph.camera} or {"unsaid"}
        return (
            ("objects", many),
            *(("action", action) for action in sorted({event.action for event in self.graph.events})),
            *(("camera", name) for name in sorted(camera)),
            ("combination", "held out" if self.held_out else "seen"),
            ("language", self.language),
        )


def load(uri: str, number: int = 0) -> list[BenchPrompt]:
    """All of a list, or so many of it, evenly spread.

    Raises:
        InputError: not a list of prompts.
        ConfigError: a negative number.
    """
    if number < 0:
        raise ConfigError("the number of prompts is 0 (all) or more", where=f"--num-prompts {number}")
    try:
        rows = json.loads(storage.read_bytes(uri))
        prompts = [BenchPrompt(**{**row, "graph": SceneGraph.from_json(row["graph"])}) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "Make one: python -m data bench-prompts --out FILE"
        raise InputError(f"not a list of benchmark prompts ({error})", where=uri, fix=fix) from None
    if not prompts:
        raise InputError("the list has no prompts", where=uri)
    if not number or number >= len(prompts):
        return prompts
    return [prompts[i] for i in np.linspace(0, len(prompts) - 1, number).round().astype(int)]
