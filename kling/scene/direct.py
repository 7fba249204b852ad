"""From a prompt to a scene that obeys: understand, lay out, simulate; and a director's corrections to it: another
camera, a drawn path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from kling.camera.choose import choose_camera, frame_scene
from kling.camera.moves import Move
from kling.errors import InputError
from kling.prompt.understand import Understanding, understand
from kling.scene.framing import planned
from kling.scene.fulfil import decide
from kling.scene.plan import ScenePlan, SceneTrack
from kling.scene.simulate import body_of, move


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
        read.graph, seed=seed, duration_s=duration_s, fps=fps, aspect=aspect, auto_camera=auto_camera, world=read.world
    )
    doubts = tuple(dict.fromkeys((*read.doubts, *plan.doubts)))
    if not plan.objects:
        doubts += ("nothing here is a thing: the scene is empty, the text alone decides what is seen",)
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


def follow(plan: ScenePlan, drawn_m: Mapping[str, Float[np.ndarray, "f 3"]]) -> tuple[ScenePlan, float]:
    """Throw objects so that they go as nearly as the laws allow where a person drew them.

    Args:
        drawn_m: wanted centres by object id, one a frame of the plan; NaN where nothing was drawn.

    Returns:
        The plan with new starts (and, within reason, frictions and restitutions), and the distance in metres (root
        mean square) that is left. The drawn objects are fitted as if they were alone with the floor.

    Raises:
        InputError: an unknown object, or a drawing of another length than the plan.
    """
    items = {item.id: item for item in plan.objects}
    for name, path in drawn_m.items():
        if name not in items or np.shape(path) != (plan.num_frames, 3):
            raise InputError(
                "a drawn path needs an object of the plan and a place for each frame",
                where=f"{name}: {np.shape(path)}",
                fix=f"The plan has {', '.join(items)} and {plan.num_frames} frames",
            )
    # Drawn from the first frame on: nothing is held, nothing stands firm.
    bodies = [replace(body_of(items[name]), release_s=0.0, fixed=False) for name in drawn_m]
    drawn = np.stack([np.asarray(path, dtype=np.float64) for path in drawn_m.values()], axis=1)
    from kling.physics.constrain import constrain  # scipy's optimizers take a second to import; few plans are drawn

    found = constrain(bodies, drawn, fps=plan.fps, gravity_m_s2=plan.environment.gravity_m_s2)
    for body in found.bodies:
        items[body.name] = items[body.name].model_copy(
            update={
                "position_m": body.position_m,
                "velocity_m_s": body.velocity_m_s,
                "angular_velocity_rad_s": body.angular_velocity_rad_s,
                "friction": body.friction,
                "restitution": body.restitution,
                "release_s": 0.0,
                "fixed": False,
            }
        )
    pushed = tuple(
        event.model_copy(update={"push_m_s": None, "push_rad_s": None}) if event.agent in drawn_m else event
        for event in plan.events
    )
    return plan.model_copy(update={"objects": tuple(items.values()), "events": pushed}), found.rms
