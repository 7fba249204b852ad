"""Temporal annotation: where everything is in each frame, how fast, what touches what, and what hides what.

One form for all clips. ``origin`` says where the numbers come from:

- "simulation": the playground's own truth, exact.
- "things": recognised things tracked in a clip that looks like the playground, in picture units: what pixels tell of
  metres a second, and of one thing touching another, is too far off to be told (docs/benchmarks/curation.md): contacts
  are those with the floor.
- "regions": whatever moves on its own in any other footage, from optical flow; in picture units alone, unnamed.

Coordinates: ``place`` x right, y down, both as shares of the picture's height from its middle, so that lengths compare;
``slide`` is its change a second; ``own_slide`` the same with the camera's part taken out.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from kling.camera import poses
from kling.scene.plan import SceneTrack
from kling.sight.labels import Sight
from kling.sight.moving import Region

Pair = tuple[float, float]
Triple = tuple[float, float, float]
_DIGITS = 4


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ThingTrack(_Model):
    """One thing; lists have one entry a frame, None where it is not seen or not known."""

    id: str
    place: tuple[Pair | None, ...]
    slide: tuple[Pair | None, ...]
    own_slide: tuple[Pair | None, ...] = ()
    position_m: tuple[Triple, ...] = ()  # in the world of kling.scene.plan; only from the simulation
    velocity_m_s: tuple[Triple, ...] = ()  # the same
    depth_m: tuple[float | None, ...] = ()


class Touch(_Model):
    """Two things touch in a frame; ``b`` is an id or "floor"."""

    frame: int
    a: str
    b: str


class Annotation(_Model):
    """One clip."""

    version: Literal[1] = 1
    origin: Literal["simulation", "things", "regions"]
    fps: float
    num_frames: int
    things: tuple[ThingTrack, ...]
    contacts: tuple[Touch, ...] = ()
    # Ids in each frame from the nearest to the farthest: what hides what where pictures overlap. Empty: not known.
    order: tuple[tuple[str, ...], ...] = ()


def from_truth(track: SceneTrack) -> Annotation:
    """Of a simulated clip."""
    pose = np.array(track.camera.camera_to_world)
    focal = poses.focal(np.array(track.camera.fov_y_deg))  # in picture heights
    rows, depths = [], {}
    for moving in track.objects:
        where = np.array(moving.position_m)
        local = np.einsum("fji,fj->fi", pose[:, :3, :3], where - pose[:, :3, 3])
        ahead = local[:, 2] > 0.05
        place = local[:, :2] / np.maximum(local[:, 2:], 0.05) * focal[:, None]
        depths[moving.id] = np.array(moving.depth_m)
        rows.append(
            ThingTrack(
                id=moving.id,
                place=_pairs(place, ahead),
                slide=_pairs(_rate(place, np.arange(len(place)), track.fps), ahead),
                position_m=moving.position_m,
                velocity_m_s=moving.velocity_m_s,
                depth_m=tuple(moving.depth_m),
            )
        )
    num_frames = len(track.camera.fov_y_deg)
    contacts = tuple(Touch(frame=c.frame, a=c.a, b=c.b) for c in track.contacts)
    return Annotation(
        origin="simulation", fps=track.fps, num_frames=num_frames, things=tuple(rows), contacts=contacts,
        order=_order(depths, num_frames),
    )  # fmt: skip


def from_sight(sight: Sight, *, fps: float, num_frames: int) -> Annotation:
    """Of a clip that was looked at and looks like the playground. Frames between those looked at are interpolated."""
    height, looked = sight.size_px[1], sight.frames
    step = looked[1] - looked[0]
    rows, depths, touching = [], {}, []
    for thing in sight.things:
        frames, seen = thing.track.frames, thing.seen
        there = (np.arange(num_frames) >= looked[frames[0]]) & (np.arange(num_frames) <= looked[frames[-1]])
        middle = thing.track.places_px + seen.middle_px[frames]
        place = (middle - np.array(sight.size_px) / 2) / height
        slide = seen.slide_px[frames] / height * fps / step

        def spread(values: np.ndarray, at: np.ndarray = looked[frames]) -> np.ndarray:
            return np.stack([np.interp(np.arange(num_frames), at, column) for column in values.T], axis=1)

        depths[thing.id] = np.where(there, spread(seen.depth_m[frames][:, None])[:, 0], np.nan)
        rows.append(
            ThingTrack(
                id=thing.id,
                place=_pairs(spread(place), there),
                slide=_pairs(spread(slide), there),
                depth_m=tuple(None if np.isnan(d) else round(float(d), _DIGITS) for d in depths[thing.id]),
            )
        )
        touching += [Touch(frame=int(looked[f]), a=thing.id, b="floor") for f in frames if seen.floor[f] >= 0.5]
    return Annotation(
        origin="things", fps=fps, num_frames=num_frames, things=tuple(rows),
        contacts=tuple(sorted(touching, key=lambda t: (t.frame, t.a, t.b))), order=_order(depths, num_frames),
    )  # fmt: skip


def from_regions(tracks: list[list[Region]], *, size_px: tuple[int, int], fps: float, num_frames: int) -> Annotation:
    """Of any other footage: what moves on its own (`kling.sight.moving`); ``size_px`` of the flow's pictures."""
    width, height = size_px
    rows = []
    for number, track in enumerate(tracks):
        place, slide, own = (np.full((num_frames, 2), np.nan) for _ in range(3))
        for region in track:
            place[region.frame] = (region.x_px - width / 2) / height, (region.y_px - height / 2) / height
            slide[region.frame] = np.array(region.slide_px) / height * fps
            own[region.frame] = np.array(region.own_px) / height * fps
        there = np.isfinite(place[:, 0])
        rows.append(
            ThingTrack(
                id=f"m{number + 1}",
                place=_pairs(place, there),
                slide=_pairs(slide, there),
                own_slide=_pairs(own, there),
            )
        )
    return Annotation(origin="regions", fps=fps, num_frames=num_frames, things=tuple(rows))


def _pairs(values: np.ndarray, there: np.ndarray) -> tuple:
    """Rows as tuples, rounded; None where it is not there."""
    rounded = np.round(values, _DIGITS)
    return tuple(tuple(row.tolist()) if ok else None for row, ok in zip(rounded, there, strict=True))


def _rate(values: np.ndarray, frames: np.ndarray, fps: float) -> np.ndarray:
    """Change a second (f k) of values at frames."""
    return np.gradient(values, frames, axis=0) * fps if len(values) > 1 else np.zeros_like(values)


def _order(depths: dict[str, np.ndarray], num_frames: int) -> tuple[tuple[str, ...], ...]:
    """Nearest first; what is not seen is left out."""
    return tuple(
        tuple(sorted((name for name in depths if np.isfinite(depths[name][f])), key=lambda name: depths[name][f]))
        for f in range(num_frames)
    )
