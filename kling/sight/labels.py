"""Labels of a clip from its pixels: scene, objects, actions, each with how sure it is; unsure ones are left out.

    see(frames, fps=8.0)

It was taught on the playground, and says nothing about clips that do not look like it (`kling.sight.scene`). What is
below its threshold is None: the thresholds were chosen on 120 validation clips so that what *is* said is right in 95 of
100 cases; docs/benchmarks/curation.md tells how often, and how much is left unsaid.
"""

from dataclasses import dataclass

import numpy as np

from kling.bench import background, camera_reader
from kling.bench.objects import lasting
from kling.bench.reader import SIZE_NAMES, Reading, read
from kling.bench.tracks import Track, find
from kling.errors import InputError
from kling.prompt.graph import ACTIONS, COLORS, SHAPES
from kling.shapes import Frames
from kling.sight import scene, things
from kling.sight.crops import ground, views

# Smallest probability at which a label is given.
# Sizes are never told: surest ones were right in two of three.
SURE = {
    "setting": 0.5, "lighting": 0.5, "number": 0.85, "color": 0.6, "shape": 0.93, "size": 1.1, "action": 0.98,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object. A label is None where it is not sure; the probabilities are those of the likeliest."""

    id: str  # "o1", "o2", ... from left to right in the first frame each is seen in
    color: str | None
    shape: str | None
    size: str | None  # "small", "large", or "" for one between
    actions: tuple[str, ...]  # what it is seen to do; none where it is not sure
    sure: dict[str, float]  # probability of the likeliest color, shape, size and action
    track: Track
    seen: things.Seen


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One clip, as far as it is understood."""

    known: bool  # whether it looks like the playground; if not, nothing else is said
    distance: float  # see `kling.sight.scene.Place`
    setting: str | None
    lighting: str | None
    camera: tuple[str, ...]  # "pan left", ...; none for a still one
    number: int | None  # of things; None where it is not sure
    things: tuple[Thing, ...]
    frames: np.ndarray  # numbers of the clip's frames that were looked at: about 8 a second
    size_px: tuple[int, int]  # width, height of the pictures that tracks are measured in


def see(frames: Frames, *, fps: float) -> Sight:
    """Look at one clip.

    Raises:
        InputError: fewer than two frames, tiny pictures, or no frame rate.
        CheckpointError: weights are missing.
    """
    if len(frames) < 2 or not fps > 0:
        raise InputError("a clip to label has two frames or more, and a rate", where=f"{len(frames)} frames at {fps:g}")
    chosen = thinned(len(frames), fps)
    ends = chosen[np.unique(np.linspace(0, len(chosen) - 1, 3).round().astype(int))]
    first = scene.place(read(frames[ends]))  # cheap: most footage is of another world
    nothing = {"setting": None, "lighting": None, "camera": (), "number": None, "things": ()}
    if not first.known:
        return Sight(known=False, distance=first.distance, frames=chosen, size_px=(0, 0), **nothing)
    reading = read(frames[chosen])
    rate = fps * (len(chosen) - 1) / max(1, int(chosen[-1] - chosen[0]))
    found = named(reading)
    steady = background.steady(reading.pictures, reading.color[:, 0] < 0.5)
    return Sight(
        known=True,
        distance=first.distance,
        setting=first.setting if first.setting_share >= SURE["setting"] else None,
        lighting=first.lighting if first.lighting_share >= SURE["lighting"] else None,
        camera=camera_reader.read_camera(steady, rate),
        number=len(found) if _surely_single(found) >= SURE["number"] else None,
        things=found,
        frames=chosen,
        size_px=(reading.pictures.shape[2], reading.pictures.shape[1]),
    )


def _surely_single(found: tuple[Thing, ...]) -> float:
    """How sure shape and color of the least sure thing are: two that look like one have the shape of none."""
    return min((min(thing.sure["shape"], thing.sure["color"]) for thing in found), default=1.0)


def named(reading: Reading) -> tuple[Thing, ...]:
    """Every lasting thing with what it is and does."""
    tracks = lasting(find(reading), len(reading.pictures))
    tracks = sorted(tracks, key=lambda track: track.blobs[0].x_px)
    under = ground(reading)
    seen = things.look([views(track, reading, under) for track in tracks])
    return tuple(_thing(f"o{i + 1}", track, one) for i, (track, one) in enumerate(zip(tracks, seen, strict=True)))


def thinned(num_frames: int, fps: float) -> np.ndarray:
    """Numbers of the frames to look at: about `things.FPS` a second, the first among them, at least two."""
    step = max(1, round(fps / things.FPS))
    chosen = np.arange(0, num_frames, step)
    return chosen if len(chosen) >= 2 else np.array([0, num_frames - 1])


def _thing(name: str, track: Track, seen: things.Seen) -> Thing:
    sure = {
        "color": float(track.color_shares.max()),
        "shape": float(seen.shape.max()),
        "size": float(seen.size.max()),
        # Of a set of yes and no: as sure as its least sure member.
        "action": float(np.maximum(seen.action, 1 - seen.action).min()) if seen.action.max() >= 0.5 else 0.0,
    }
    does = tuple(name for name, share in zip(ACTIONS, seen.action, strict=True) if share >= 0.5)
    return Thing(
        id=name,
        color=COLORS[int(track.color_shares.argmax())] if sure["color"] >= SURE["color"] else None,
        shape=SHAPES[int(seen.shape.argmax())] if sure["shape"] >= SURE["shape"] else None,
        size=SIZE_NAMES[int(seen.size.argmax())] if sure["size"] >= SURE["size"] else None,
        actions=does if sure["action"] >= SURE["action"] else (),
        sure=sure,
        track=track,
        seen=seen,
    )
