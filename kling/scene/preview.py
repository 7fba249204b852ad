"""The plan as a wireframe animation: through its camera, from above, and in time. Drawn in software (OpenCV).

Left: the camera's view, with shadows, paths and names. Right: a map with the camera's own path, and a time line with
events and contacts. It shows what will happen before frames are paid for; it is not a rendering.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kling.camera import poses
from kling.media.video import write_mp4
from kling.scene.plan import Contact, PlannedObject, ScenePlan, SceneTrack
from kling.scene.simulate import simulate

_HEIGHT_PX = 540
_MAP_PX = 360
_BAR_PX = 74
_SHIFT = 4  # fractional bits of OpenCV's coordinates: lines move smoothly
_NIGHT, _GRID, _INK, _FAINT = (24, 20, 16), (62, 54, 46), (235, 228, 220), (140, 128, 116)  # BGR
_ACCENT = (80, 190, 255)
_COLORS = {
    "red": (72, 72, 235), "orange": (60, 150, 250), "yellow": (80, 220, 245), "green": (100, 200, 90),
    "cyan": (220, 205, 80), "blue": (240, 140, 80), "purple": (220, 100, 170), "pink": (190, 140, 245),
}  # fmt: skip
_PLAIN = (190, 185, 180)
_RING = np.linspace(0, 2 * np.pi, 25)


@dataclass(frozen=True, kw_only=True)
class _Film:
    """What every frame needs."""

    plan: ScenePlan
    track: SceneTrack
    place: np.ndarray  # f k 3
    pose: np.ndarray  # f 4 4
    fov: np.ndarray  # f
    size: tuple[int, int]  # width, height of the view, px
    scale: float  # px a metre on the map
    middle: np.ndarray  # of the map, metres
    grid: tuple[np.ndarray, list[tuple]]
    impacts: tuple[Contact, ...]


def write_preview(target: str | Path, plan: ScenePlan, *, aspect: float = 1.0, fps: float = 24.0) -> None:
    """Draw the plan into an mp4.

    Args:
        aspect: width over height of the camera's picture.
        fps: of the preview; the plan is simulated at this rate, so that slow frame rates still look smooth.
    """
    write_mp4(target, draw(plan, aspect=aspect, fps=fps), fps=fps, crf=18)


def draw(plan: ScenePlan, *, aspect: float = 1.0, fps: float = 24.0) -> Iterator[np.ndarray]:
    """Frames of the preview, h w 3 uint8 RGB."""
    film = _film(plan.model_copy(update={"fps": fps}), aspect)
    for frame in range(len(film.fov)):
        width, height = film.size
        page = np.full((height + _BAR_PX, width + _MAP_PX, 3), _NIGHT, np.uint8)
        page[:height, :width] = _view(film, frame)
        page[:height, width:] = _map(film, frame)
        _time_line(page[height:], film, frame)
        yield cv2.cvtColor(page, cv2.COLOR_BGR2RGB)


def _film(plan: ScenePlan, aspect: float) -> _Film:
    track = simulate(plan, aspect=aspect)
    frames = len(track.camera.fov_y_deg)
    place = np.array([item.position_m for item in track.objects]).reshape(-1, frames, 3).transpose(1, 0, 2)
    pose, fov = np.array(track.camera.camera_to_world), np.array(track.camera.fov_y_deg)
    ground = np.concatenate([place[..., :2].reshape(-1, 2), pose[:, :2, 3]])
    low, high = ground.min(axis=0) - 0.6, ground.max(axis=0) + 0.6
    scale = min((_MAP_PX - 20) / (high - low)[0], (_HEIGHT_PX - 60) / (high - low)[1])
    return _Film(
        plan=plan, track=track, place=place, pose=pose, fov=fov, size=(round(_HEIGHT_PX * aspect) // 2 * 2, _HEIGHT_PX),
        scale=float(scale), middle=(low + high) / 2, grid=_grid(), impacts=_impacts(track),
    )  # fmt: skip


def _view(film: _Film, frame: int) -> np.ndarray:
    """What the camera sees."""
    width, height = film.size
    image = np.full((height, width, 3), _NIGHT, np.uint8)
    lens = _Lens(film.pose[frame], float(film.fov[frame]), film.size)
    lens.segments(image, *film.grid, 1)
    layer = image.copy()
    for k, item in enumerate(film.plan.objects):  # shadows first: they lie on the floor
        reach = max(item.half_size_m[:2])
        ring = np.stack([np.cos(_RING), np.sin(_RING), 0 * _RING], axis=1) * reach + [*film.place[frame, k, :2], 0.0]
        lens.fill(layer, ring, (8, 6, 5))
    cv2.addWeighted(layer, 0.55, image, 0.45, 0, dst=image)
    order = sorted(range(len(film.plan.objects)), key=lambda k: -film.track.objects[k].depth_m[frame])
    for k in order:
        _trail(image, lens, film, k, frame)
    for k in order:
        _body(image, lens, film, k, frame)
    for contact in film.impacts:
        age = frame - contact.frame
        if 0 <= age < 6:
            spread = np.stack([np.cos(_RING), np.sin(_RING), 0 * _RING], axis=1) * (0.05 + 0.05 * age)
            lens.line(image, spread + contact.point_m, _ACCENT, 1)
    for k in order:
        _name(image, lens, film, k, frame)
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), _GRID, 1)
    return image


class _Lens:
    """Projects world points into the picture and draws them, clipped in front of the camera."""

    def __init__(self, pose: np.ndarray, fov_y_deg: float, size: tuple[int, int]):
        self.to_camera, self.size = poses.invert(pose), size
        self.focal = float(poses.focal(fov_y_deg)) * size[1]

    def local(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(points) @ self.to_camera[:3, :3].T + self.to_camera[:3, 3]

    def picture(self, local: np.ndarray) -> np.ndarray:
        return local[:, :2] / local[:, 2:] * self.focal + np.array(self.size) / 2

    def line(self, image: np.ndarray, points: np.ndarray, color: tuple, thickness: int) -> None:
        """A polyline through points (n 3)."""
        points = np.asarray(points)
        self.segments(image, np.stack([points[:-1], points[1:]], axis=1), [color] * (len(points) - 1), thickness)

    def segments(self, image: np.ndarray, ends: np.ndarray, colors: list[tuple], thickness: int) -> None:
        """Lines between pairs of points (n 2 3), cut off just in front of the camera."""
        near = 0.05
        local = self.local(ends)
        a, b = local[:, 0], local[:, 1]
        gap = np.where(a[:, 2:] == b[:, 2:], 1.0, a[:, 2:] - b[:, 2:])
        cut = b + (a - b) * (near - b[:, 2:]) / gap
        seen = (a[:, 2] >= near) | (b[:, 2] >= near)
        a, b = np.where(a[:, 2:] < near, cut, a), np.where(b[:, 2:] < near, cut, b)
        starts, stops = (np.clip(self.picture(end[seen]), -20_000, 20_000) for end in (a, b))
        starts, stops = (np.round(end * 2**_SHIFT).astype(int).tolist() for end in (starts, stops))
        kept = [color for color, is_seen in zip(colors, seen, strict=True) if is_seen]
        for start, stop, color in zip(starts, stops, kept, strict=True):
            cv2.line(image, start, stop, color, thickness, cv2.LINE_AA, _SHIFT)

    def fill(self, image: np.ndarray, points: np.ndarray, color: tuple) -> None:
        local = self.local(points)
        if local[:, 2].min() < 0.05:
            return
        hull = cv2.convexHull(self.picture(local).astype(np.float32)).reshape(-1, 2)
        cv2.fillConvexPoly(image, np.round(hull * 2**_SHIFT).astype(np.int32), color, cv2.LINE_AA, _SHIFT)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.round(np.asarray(point) * 2**_SHIFT).astype(int).tolist()
    return x, y


def _grid() -> tuple[np.ndarray, list[tuple]]:
    """Segments (n 2 3) of a floor grid of half metres, and their colours, which fade with the distance."""
    reach = 5.0
    ends, colors = [], []
    along = np.arange(-reach, reach + 0.1, 1.0)
    for tick in np.arange(-reach, reach + 0.1, 0.5):
        strength = 1.0 if tick == round(tick) else 0.4
        for start, stop in itertools.pairwise(along.tolist()):
            for piece in (((start, tick, 0.0), (stop, tick, 0.0)), ((tick, start, 0.0), (tick, stop, 0.0))):
                fade = strength * (1.1 - float(np.linalg.norm(np.mean(piece, axis=0))) / reach)
                if fade > 0.05:
                    ends.append(piece)
                    colors.append(tuple(int(n + (g - n) * fade) for n, g in zip(_NIGHT, _GRID, strict=True)))
    return np.array(ends), colors


def _impacts(track: SceneTrack) -> tuple[Contact, ...]:
    """Contacts that begin: what lies, rolls or slides on touches without meeting."""
    before: dict[tuple[str, str], int] = {}
    found = []
    for contact in track.contacts:
        pair = (contact.a, contact.b)
        if contact.frame - before.get(pair, -9 if contact.frame else 0) > 2:
            found.append(contact)
        before[pair] = contact.frame
    return tuple(found)


def _trail(image: np.ndarray, lens: _Lens, film: _Film, k: int, frame: int) -> None:
    """Where it has been (bright) and will be (faint)."""
    path = film.place[:, k]
    if np.ptp(path, axis=0).max() < 0.02:
        return
    color = _color(film.plan.objects[k])
    lens.line(image, path[frame:], _mix(color, 0.35), 1)
    lens.line(image, path[: frame + 1], _mix(color, 0.8), 2)
    for point in path[:: max(1, len(path) // 8)]:  # beads at even times: far apart is fast
        local = lens.local(point[None])
        if local[0, 2] > 0.05:
            cv2.circle(image, _fixed(lens.picture(local)[0]), 2 << _SHIFT, _mix(color, 0.8), -1, cv2.LINE_AA, _SHIFT)


def _body(image: np.ndarray, lens: _Lens, film: _Film, k: int, frame: int) -> None:
    """Outline filled thinly, wires on top, the rope of what hangs, an arrow along its velocity."""
    item, track = film.plan.objects[k], film.track.objects[k]
    place, color = film.place[frame, k], _color(item)
    turn = poses.to_matrix(poses.unit(np.array(track.quaternion[frame])))
    wires = [wire @ turn.T + place for wire in _wires(item, lens, turn, place)]
    layer = image.copy()
    lens.fill(layer, np.concatenate(wires), _mix(color, 0.75))
    cv2.addWeighted(layer, 0.5, image, 0.5, 0, dst=image)
    for n, wire in enumerate(wires):
        lens.line(image, wire, color if n == 0 else _mix(color, 0.85), 2 if n == 0 else 1)
    if item.pivot_m is not None:
        lens.line(image, np.stack([place, np.array(item.pivot_m)]), _FAINT, 1)
    velocity = np.array(track.velocity_m_s[frame])
    if np.linalg.norm(velocity) > 0.15:
        tip = lens.local(np.stack([place, place + 0.18 * velocity]))
        if tip[:, 2].min() > 0.05:
            start, end = lens.picture(tip)
            cv2.arrowedLine(image, _fixed(start), _fixed(end), _INK, 1, cv2.LINE_AA, _SHIFT, 0.25)


def _wires(item: PlannedObject, lens: _Lens, turn: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """Polylines of a shape in its own axes (n 3 each); the outline of a ball comes first."""
    a, b, c = item.half_size_m
    cosine, sine, none = np.cos(_RING), np.sin(_RING), 0 * _RING
    if item.proxy == "ball":
        # The outline is the circle across the line of sight; two great circles turn with the ball.
        eye = (-lens.to_camera[:3, :3].T @ lens.to_camera[:3, 3] - place) @ turn
        eye /= np.linalg.norm(eye)
        side = np.cross(eye, [0.0, 0.0, 1.0] if abs(eye[2]) < 0.9 else [1.0, 0.0, 0.0])
        side /= np.linalg.norm(side)
        outline = a * (np.outer(cosine, side) + np.outer(sine, np.cross(eye, side)))
        return [outline, a * np.stack([cosine, sine, none], 1), a * np.stack([cosine, none, sine], 1)]
    if item.proxy == "cube":
        square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
        rings = [np.column_stack([square * [a, b], np.full(5, z)]) for z in (-c, c)]
        return [*rings, *(np.array([(x * a, y * b, -c), (x * a, y * b, c)]) for x, y in square[:4])]
    ring = np.stack([a * cosine, b * sine, none], 1)
    quarters = _RING[::6][:4]
    if item.proxy == "cone":
        sides = [np.array([(a * np.cos(t), b * np.sin(t), -c), (0, 0, c)]) for t in quarters]
        return [ring - [0, 0, c], *sides]
    if item.proxy == "capsule":
        trunk = max(c - a, 0.0)
        half = np.linspace(0, np.pi, 13)
        arc = np.stack([a * np.cos(half), 0 * half, a * np.sin(half) + trunk], 1)
        caps = [arc, arc * [1, 1, -1], arc[:, [1, 0, 2]], (arc * [1, 1, -1])[:, [1, 0, 2]]]
        sides = [
            np.array([(a * np.cos(t), b * np.sin(t), -trunk), (a * np.cos(t), b * np.sin(t), trunk)]) for t in quarters
        ]
        return [ring + np.array([0, 0, trunk]), ring - [0, 0, trunk], *caps, *sides]
    sides = [np.array([(a * np.cos(t), b * np.sin(t), -c), (a * np.cos(t), b * np.sin(t), c)]) for t in quarters]
    return [ring + np.array([0, 0, c]), ring - [0, 0, c], *sides]


def _name(image: np.ndarray, lens: _Lens, film: _Film, k: int, frame: int) -> None:
    """Its phrase above it, when it is to be seen."""
    item, track = film.plan.objects[k], film.track.objects[k]
    box = track.box[frame]
    if box is None or track.visibility[frame] < 0.05:
        return
    x = (box[0] + box[2]) / 2 * lens.size[0]
    y = box[1] * lens.size[1] - 8
    _text(image, item.phrase, (x, max(y, 14)), _mix(_color(item), 1.0), centered=True)


def _map(film: _Film, frame: int) -> np.ndarray:
    """The scene from above: objects, their paths, the camera, its path and what it sees."""
    height = film.size[1]
    image = np.full((height, _MAP_PX, 3), (30, 26, 21), np.uint8)

    def at(points: np.ndarray) -> np.ndarray:
        flat = (np.atleast_2d(points)[:, :2] - film.middle) * film.scale * [1, -1]
        return np.round((flat + np.array([_MAP_PX / 2, height / 2 + 12])) * 2**_SHIFT).astype(np.int32)

    for tick in np.arange(-8, 8.1, 1.0):
        for ends in ([[tick, -8], [tick, 8]], [[-8, tick], [8, tick]]):
            cv2.polylines(image, [at(np.array(ends))], False, (44, 38, 32), 1, cv2.LINE_AA, _SHIFT)
    eye, fov = film.pose[frame, :3, 3], np.deg2rad(film.fov[frame])
    half = np.tan(fov / 2) * film.size[0] / film.size[1]
    corners = np.array([[-half, 0, 1], [half, 0, 1]]) * 2.2 @ film.pose[frame, :3, :3].T + eye
    layer = image.copy()
    cv2.fillPoly(layer, [at(np.stack([eye, *corners]))], _ACCENT, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(layer, 0.16, image, 0.84, 0, dst=image)
    cv2.polylines(image, [at(film.pose[:, :3, 3])], False, _mix(_ACCENT, 0.6), 1, cv2.LINE_AA, _SHIFT)
    for key in film.plan.camera.keys:
        cv2.circle(image, tuple(at(np.array(key.position_m))[0].tolist()), 2 << _SHIFT, _ACCENT, 1, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, tuple(at(eye)[0].tolist()), 5 << _SHIFT, _ACCENT, -1, cv2.LINE_AA, _SHIFT)
    for k, item in enumerate(film.plan.objects):
        color = _color(item)
        cv2.polylines(image, [at(film.place[:, k])], False, _mix(color, 0.6), 1, cv2.LINE_AA, _SHIFT)
        radius = max(3, round(max(item.half_size_m[:2]) * film.scale))
        cv2.circle(image, tuple(at(film.place[frame, k])[0].tolist()), radius << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)
    _text(image, "from above, 1 m grid", (12, 20), _FAINT)
    _text(image, f"camera: {', '.join(film.plan.camera.moves)}", (12, 38), _ACCENT)
    return image


def _time_line(bar: np.ndarray, film: _Film, frame: int) -> None:
    """Seconds, events from their start, contacts as ticks, and now."""
    left, right = 24, bar.shape[1] - 24
    frames = max(len(film.fov) - 1, 1)

    def x_of(share: float) -> int:
        return round(left + (right - left) * min(max(share, 0.0), 1.0))

    y = 30
    cv2.line(bar, (left, y), (right, y), _GRID, 3, cv2.LINE_AA)
    cv2.line(bar, (left, y), (x_of(frame / frames), y), _ACCENT, 3, cv2.LINE_AA)
    for contact in film.impacts:
        x = x_of(contact.frame / frames)
        cv2.line(bar, (x, y - 9), (x, y - 3), _INK, 1, cv2.LINE_AA)
    phrases = {item.id: item.phrase for item in film.plan.objects}
    ends = [0.0, 0.0]
    for event in film.plan.events:
        x = x_of(event.start_s / film.plan.duration_s)
        words = f"{phrases.get(event.agent, event.agent)}: {event.action} {event.direction or ''}".strip()
        row = min(range(len(ends)), key=lambda n: (ends[n] > x, ends[n]))
        if ends[row] > x:  # no room: the plan's table has them all
            continue
        cv2.circle(bar, (x, y), 4, _INK, -1, cv2.LINE_AA)
        ends[row] = x + 12 + _text(bar, words, (x, y + 20 + 17 * row), _INK)
    now = f"{frame / film.plan.fps:4.2f} s"
    _text(bar, now, (x_of(frame / frames), 16), _ACCENT, centered=True)


def _text(image: np.ndarray, text: str, place: tuple[float, float], color: tuple, *, centered: bool = False) -> float:
    """Draw one line; returns its width. OpenCV's strokes know ASCII only: other letters become dots."""
    plain = "".join(letter if " " <= letter <= "~" else "." for letter in text)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    (width, _), _ = cv2.getTextSize(plain, font, size, 1)
    x = place[0] - width / 2 if centered else place[0]
    x = min(max(x, 4), image.shape[1] - width - 4)
    cv2.putText(image, plain, (round(x), round(place[1])), font, size, _NIGHT, 3, cv2.LINE_AA)
    cv2.putText(image, plain, (round(x), round(place[1])), font, size, color, 1, cv2.LINE_AA)
    return float(width)


def _color(item: PlannedObject) -> tuple[int, int, int]:
    return _COLORS.get(item.color or "", _PLAIN)


def _mix(color: tuple, share: float) -> tuple[int, int, int]:
    """The colour, faded towards the background."""
    b, g, r = (int(n + (c - n) * share) for n, c in zip(_NIGHT, color, strict=True))
    return b, g, r
