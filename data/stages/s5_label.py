"""Step 5: labels and temporal annotation. From the ground truth where there is one, else from the pixels.

Labels are a hierarchy, scene > objects > actions. ``origin`` tells where they come from: "playground" (truth),
"seen" (recognised in a clip that looks like the playground, `kling.sight.labels`), "measured" (any other footage:
light, amount of motion and camera move, and no objects, since nothing here would recognise them).
"""

import json
from typing import TYPE_CHECKING, Any

from data.work import Clip
from kling.presets import ClipSpec
from kling.quality import camera, motion
from kling.scene.plan import ScenePlan, SceneTrack

if TYPE_CHECKING:
    from kling.sight import annotation, labels


def label_clip(clip: Clip, spec: ClipSpec) -> None:
    """Fill ``labels`` and ``annotation``; needs the clip's scores."""
    from kling.sight import annotation, labels  # torch is loaded by those who need it: readers start without

    if clip.track is not None:
        told = annotation.from_truth(SceneTrack.model_validate_json(clip.track))
    else:
        sight = labels.see(clip.pixels, fps=float(spec.fps))
        clip.labels = json.dumps(_seen(clip, sight), ensure_ascii=False, sort_keys=True)
        told = _tracks(clip, sight, float(spec.fps))
    clip.annotation = told.model_dump_json()
    clip.flow = None  # it has been used


def _tracks(clip: Clip, sight: "labels.Sight", fps: float) -> "annotation.Annotation":
    from kling.sight import annotation, moving

    num_frames = len(clip.pixels)
    if sight.known:
        return annotation.from_sight(sight, fps=fps, num_frames=num_frames)
    grey = motion.shrink(clip.pixels)
    flow = motion.flows(grey) if clip.flow is None else clip.flow
    size_px = (flow.shape[2], flow.shape[1])
    return annotation.from_regions(moving.regions(flow, grey), size_px=size_px, fps=fps, num_frames=num_frames)


def _seen(clip: Clip, sight: "labels.Sight") -> dict[str, Any]:
    """Scene > objects > actions of what has no truth; null where it is not sure."""
    move = camera.name_of(*(clip.scores[f"camera_{name}"] for name in ("pan", "tilt", "zoom", "roll")))
    scene: dict[str, Any] = {
        "light": _grade(clip.scores["brightness"], 0.25, 0.65, ("dark", "medium", "bright")),
        "motion": _grade(clip.scores["speed"], 0.002, 0.02, ("little", "some", "much")),
        "camera": [] if move == "static" else [move],
    }
    if not sight.known:
        return {"origin": "measured", "scene": scene, "objects": [], "actions": []}
    scene |= {"setting": sight.setting, "lighting": sight.lighting, "number": sight.number}
    scene["camera"] = list(sight.camera)
    objects = [
        {
            "id": thing.id,
            "color": thing.color,
            "shape": thing.shape,
            "size": thing.size,
            "sure": {name: round(value, 3) for name, value in thing.sure.items()},
        }
        for thing in sight.things
    ]
    actions = [{"object": thing.id, "action": action} for thing in sight.things for action in thing.actions]
    return {"origin": "seen", "scene": scene, "objects": objects, "actions": actions}


def of_truth(graph: dict[str, Any], plan: ScenePlan) -> dict[str, Any]:
    """Scene > objects > actions of a playground clip, and the graph that its captions say."""
    scene = {
        "setting": plan.environment.setting,
        "lighting": plan.environment.lighting,
        "camera": [move for move in plan.camera.moves if move != "static"],
    }
    objects = [
        {"id": item.id, "color": item.color, "shape": item.shape, "size": item.size or "", "material": item.material}
        for item in plan.objects
    ]
    actions = [
        {
            "object": event["agent"],
            "action": event["action"],
            "patient": event["patient"],
            "direction": event["direction"],
        }
        for event in graph.get("events", ())
    ]
    return {"origin": "playground", "scene": scene, "objects": objects, "actions": actions, "graph": graph}


def _grade(value: float, low: float, high: float, words: tuple[str, str, str]) -> str:
    return words[0] if value < low else words[2] if value > high else words[1]
