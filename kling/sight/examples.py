"""Things found in playground clips, joined to the truth of their sidecars: what `ThingNet` is taught and tested on."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from kling.bench.objects import lasting
from kling.bench.reader import SIDE_PX, SIZE_NAMES, read
from kling.bench.tracks import Track, find
from kling.camera import poses
from kling.errors import InputError
from kling.media.video import read_frames
from kling.prompt.graph import ACTIONS, SHAPES
from kling.scene.plan import Sidecar
from kling.shapes import Frames
from kling.sight.crops import Views, ground, views

_SEEN_SHARE = 0.25  # visible share of a thing's own pixels from which it counts as seen in a frame
_SEEN_FRAMES = 4
_NEAR_PX = 5.0  # a found thing is the true one when its middle is nearer than this, in the median frame
_STILL_M = 0.05  # what nothing is said about and moves less than this, stays


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Of one object, for f frames."""

    color: str
    shape: int
    size: int
    action: np.ndarray  # 10 float32 of 0 and 1; nan: it is not said what it does, and it does not stay
    middle_px: np.ndarray  # f 2: of its outline's box
    centre_px: np.ndarray  # f 2: of mass
    slide_px: np.ndarray  # f 2: of its centre of mass in the picture, pixels a frame
    velocity_m_s: np.ndarray  # f 3
    depth_m: np.ndarray  # f
    floor: np.ndarray  # f float32
    visible: np.ndarray  # f: share of its own pixels


@dataclass(frozen=True, kw_only=True)
class Example:
    """One thing that was found, and which it is."""

    clip: int  # seed of its clip
    views: Views
    places_px: np.ndarray  # f 2: middle of its blob; nan where it was not seen
    truth: Truth


def soften(frames: Frames, rng: np.random.Generator) -> Frames:
    """As a generator or a codec would spoil them: another light, blur, noise; the same for all frames."""
    gain, lift = rng.uniform(0.9, 1.1) * rng.uniform(0.97, 1.03, 3), rng.uniform(-10, 10)
    blur, noise = rng.uniform(0.3, 1.0), rng.uniform(0, 5)
    smooth = np.stack([cv2.GaussianBlur(frame, (0, 0), blur) for frame in frames]) * gain + lift
    return np.clip(smooth + rng.normal(0, noise, smooth.shape), 0, 255).astype(np.uint8)


def truths(sidecar: Sidecar) -> list[Truth]:
    """One for each object of the plan, in pixels of the reader's pictures."""
    scale = SIDE_PX / min(sidecar.width_px, sidecar.height_px)
    width, height = sidecar.width_px * scale, sidecar.height_px * scale
    track, graph = sidecar.track, sidecar.graph
    pose = np.array(track.camera.camera_to_world)
    focal = poses.focal(np.array(track.camera.fov_y_deg)) * height
    patients = {event["patient"] for event in graph["events"]}
    found = []
    for item, moving in zip(sidecar.plan.objects, track.objects, strict=True):
        box = np.array([b or (np.nan,) * 4 for b in moving.box]) * (width, height, width, height)
        where = np.array(moving.position_m)
        local = np.einsum("fji,fj->fi", pose[:, :3, :3], where - pose[:, :3, 3])
        centre = local[:, :2] / np.maximum(local[:, 2:], 1e-6) * focal[:, None] + [width / 2, height / 2]
        does = {event["action"] for event in graph["events"] if event["agent"] == item.id}
        action = np.array([float(name in does) for name in ACTIONS], np.float32)
        if not does:
            stays = item.id not in patients and np.ptp(where, axis=0).max() < _STILL_M
            action[:] = np.nan
            if stays:
                action[:] = [float(name == "stay") for name in ACTIONS]
        floor = np.zeros(len(where), np.float32)
        floor[[c.frame for c in track.contacts if {c.a, c.b} == {item.id, "floor"} and c.frame < len(where)]] = 1
        found.append(
            Truth(
                color=item.color or "",
                shape=SHAPES.index(item.proxy),
                size=SIZE_NAMES.index(item.size or ""),
                action=action,
                middle_px=(box[:, :2] + box[:, 2:]) / 2,
                centre_px=centre,
                slide_px=np.gradient(centre, axis=0),
                velocity_m_s=np.array(moving.velocity_m_s),
                depth_m=np.array(moving.depth_m),
                floor=floor,
                visible=np.array(moving.visibility),
            )
        )
    return found


def pair(tracks: list[Track], truth: list[Truth]) -> dict[int, int]:
    """{object: track}: by place alone. Objects that are hardly ever seen are left out."""
    cost = np.full((len(truth), len(tracks)), 1e3)
    for i, one in enumerate(truth):
        there = is_seen(one)
        for j, track in enumerate(tracks):
            both = there[track.frames]
            if both.sum() >= 2 and there.sum() >= _SEEN_FRAMES:
                away = np.linalg.norm(track.places_px[both] - one.middle_px[track.frames][both], axis=1)
                cost[i, j] = float(np.median(away))
    rows, columns = linear_sum_assignment(cost)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cost[i, j] < _NEAR_PX}


def is_seen(truth: Truth) -> np.ndarray:
    """f bool."""
    return (truth.visible > _SEEN_SHARE) & np.isfinite(truth.middle_px[:, 0])


def counts(truth: Truth) -> bool:
    """Whether it is seen long enough for anyone to name it."""
    return bool(is_seen(truth).sum() >= _SEEN_FRAMES)


def collect(files: list[Path], *, soft: bool) -> list[Example]:
    """Every thing found in playground clips.

    Args:
        files: sidecars.
        soft: spoil every other clip (`soften`).

    Raises:
        InputError: no clips.
    """
    if not files:
        raise InputError("no playground clips there", fix="Render some: python -m data playground")
    found = []
    for number, path in enumerate(files):
        sidecar = Sidecar.model_validate_json(path.read_bytes())
        frames, _ = read_frames(path.with_suffix(".mp4"))
        if soft and number % 2:
            frames = soften(frames, np.random.default_rng(sidecar.seed))
        reading = read(frames)
        tracks = lasting(find(reading), len(frames))
        under = ground(reading)
        truth = truths(sidecar)
        for i, j in pair(tracks, truth).items():
            places = np.full((len(frames), 2), np.nan)
            places[tracks[j].frames] = tracks[j].places_px
            found.append(
                Example(clip=sidecar.seed, views=views(tracks[j], reading, under), places_px=places, truth=truth[i])
            )
    return found
