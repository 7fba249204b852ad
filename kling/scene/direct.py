"""From a prompt to a scene that obeys: understand, lay out, simulate; and to point another camera at it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kling.camera.choose import choose_camera, frame_scene
from kling.camera.moves import Move
from kling.prompt.understand import Understanding, understand
from kling.scene.framing import planned
from kling.scene.fulfil import decide
from kling.scene.plan import ScenePlan, SceneTrack
from kling.scene.simulate import move


@dataclass(frozen=True, kw_only=True)
class Directed:
    """Everything that was decided, level by level."""

    understanding: Understanding
    plan: ScenePlan
    track: SceneTrack


def direct(
    prompt: str, *, language: str | None = None, seed: int = 0, duration_s: float | None = None, fps: float = 8.0,
    aspect: float = 1.0, auto_camera: bool = False,
) -> Directed:  # fmt: skip
    """Decide what happens.

    Args:
        duration_s: None: what the prompt says ("for 5 seconds"), else 2 s.
        auto_camera: choose a camera move when the prompt names none.

    Returns:
        The plan carries the doubts of every level, and the words that none of them could use.

    Raises:
        InputError, ConfigError: as `kling.prompt.understand`. A strange scene is no error: its doubts are named.
    """
    read = understand(prompt, language=language)
    if duration_s is None:
        duration_s = 2.0 if "duration" in read.world.assumed else read.world.duration_s
    plan, track, _ = decide(
        read.graph, seed=seed, duration_s=duration_s, fps=fps, aspect=aspect, auto_camera=auto_camera
    )
    doubts = tuple(dict.fromkeys((*read.doubts, *plan.doubts)))
    if not (read.graph.objects or read.graph.events or read.graph.camera):
        doubts += ("nothing here is a thing, an event or a camera move: the scene is empty, the text alone decides",)
    if len(plan.objects) == 1 and any(event.action == "collide" for event in plan.events):
        doubts += ("a collision needs two things: there is nothing to meet",)
    plan = plan.model_copy(
        update={"confidence": read.confidence, "doubts": doubts, "not_understood": read.not_understood}
    )
    return Directed(understanding=read, plan=plan, track=track)


def film(plan: ScenePlan, moves: Sequence[Move] | None, *, aspect: float = 1.0, eased: bool = False) -> ScenePlan:
    """The same scene seen by another camera, placed so that what moves stays in frame.

    Args:
        moves: None: choose them from what happens; empty: a still camera.
    """
    motion = move(plan)
    # A sphere around the half sizes of a box: never too small.
    radii = np.array([np.linalg.norm(item.half_size_m) for item in plan.objects])
    if moves is None:
        framing = choose_camera(motion.position_m, radii, duration_s=plan.duration_s, aspect=aspect)
    else:
        framing = frame_scene(motion.position_m, radii, moves, duration_s=plan.duration_s, aspect=aspect)
    camera = planned(framing).model_copy(update={"easing": "ease" if eased else "linear"})
    return plan.model_copy(update={"camera": camera})
