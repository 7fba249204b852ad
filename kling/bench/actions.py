"""Whether a tracked thing does what was said, and in the said direction. From its path alone.

Directions are the viewer's. What an action must show, in metres and seconds, is what `kling.scene.fulfil` demands of a
simulated scene, with room for what small pictures cannot tell (rolling from sliding, a ball's spin).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kling.bench.paths import LOOK_DOWN, Path
from kling.bench.tracks import Track
from kling.prompt.graph import Event

_STILL_M = 0.16  # what does not move may seem to by so much
_GROUND = frozenset({"roll", "slide", "topple", "stay", "spin", "collide"})


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One event's agent (and patient) as seen."""

    event: Event
    track: Track
    path: Path
    patient: Track | None = None
    patient_path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EventVerdict:
    """One said event. ``direction`` is None where none was said."""

    action: str
    agent: str
    happens: bool
    direction: bool | None
    seen_direction: str | None  # the strongest: "left", "right", "toward", "away", "up", "down"


def judge(seen: Seen | None, event: Event) -> EventVerdict:
    """``seen`` is None when the agent was not found: nothing happens then."""
    said = event.direction or ("down" if event.action == "fall" else None)
    if seen is None or len(seen.path.frames) < 2:
        wrong = None if said is None else False
        return EventVerdict(action=event.action, agent=event.agent, happens=False, direction=wrong, seen_direction=None)
    strength = directions(seen)
    strongest = max(strength, key=lambda name: strength[name])
    right = None if said is None else _goes(said, strength, event.action)
    check = _CHECKS.get(event.action)
    return EventVerdict(
        action=event.action,
        agent=event.agent,
        happens=bool(check is not None and check(seen)),
        direction=right,
        seen_direction=strongest if strength[strongest] > 0 else None,
    )


def directions(seen: Seen) -> dict[str, float]:
    """How far it goes each way, metres: over the floor from first to last, up and down at the most."""
    path = seen.path
    right = _most(path.right_m)
    grounded = seen.event.action in _GROUND  # what stays on the floor climbs in the picture only by going away
    away = _most(path.rise_m) / LOOK_DOWN if grounded else float(path.away_m[-1])
    up = float(path.rise_m.max() - path.rise_m[0])
    down = float(path.rise_m[0] - path.rise_m.min())
    return {"left": -right, "right": right, "toward": -away, "away": away, "up": up, "down": down}


def _most(values: np.ndarray) -> float:
    """The farthest from the start, smoothed over two frames, with its sign."""
    smooth = (values[1:] + values[:-1]) / 2 if len(values) > 2 else values
    return float(smooth[np.abs(smooth).argmax()])


def _goes(said: str, strength: dict[str, float], action: str) -> bool:
    if said in ("left", "right"):
        least = 0.02 if action == "topple" else 0.12
        return bool(strength[said] > least)
    if said in ("toward", "away"):
        sideways = abs(strength["left"])
        return bool(strength[said] > 0.12 and strength[said] > 0.7 * sideways)
    return bool(strength[said] > 0.12)


def _range(path: Path) -> float:
    return float(np.hypot(np.ptp(path.right_m), np.ptp(path.rise_m)))


def _falls(s: Seen) -> bool:
    return float((np.maximum.accumulate(s.path.rise_m) - s.path.rise_m).max()) > 0.22


def _bounces(s: Seen) -> bool:
    """Down, then up again."""
    rise = s.path.rise_m
    lowest = int(rise.argmin())
    climbs = max((float(rise[i:].max() - rise[i]) for i in range(1, len(rise)) if rise[0] - rise[i] > 0.1), default=0.0)
    return lowest > 0 and climbs > 0.07


def _travels(s: Seen) -> bool:
    away = _most(s.path.rise_m) / LOOK_DOWN
    return float(np.hypot(_most(s.path.right_m), away)) > 0.18


def _thrown(s: Seen) -> bool:
    return float((s.path.rise_m - np.minimum.accumulate(s.path.rise_m)).max()) > 0.1 and _range(s.path) > 0.2


def _swings(s: Seen) -> bool:
    return float(np.hypot(np.ptp(s.path.right_m), np.ptp(s.path.rise_m) / LOOK_DOWN)) > 0.18


def _topples(s: Seen) -> bool:
    """Its outline changes: what stood up lies down, or the other way round."""
    tall = np.array([np.log((b.box_px[3] - b.box_px[1]) / max(b.box_px[2] - b.box_px[0], 1.0)) for b in s.track.blobs])
    return float(np.ptp(tall)) > 0.25 or _range(s.path) > 0.1


def _stays(s: Seen) -> bool:
    middle = np.stack([s.path.right_m, s.path.rise_m], axis=1)
    return float(np.quantile(np.linalg.norm(middle - np.median(middle, axis=0), axis=1), 0.9)) < _STILL_M


def _collides(s: Seen) -> bool:
    """It moves, and their pictures come to touch."""
    if not (_range(s.path) > 0.15):
        return False
    if s.patient is None:
        return True
    there = {blob.frame: blob for blob in s.patient.blobs}
    gaps = [_gap(blob.box_px, there[blob.frame].box_px) for blob in s.track.blobs if blob.frame in there]
    return bool(gaps) and min(gaps) <= 2.5


def _gap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Pixels between two boxes."""
    dx = max(a[0] - b[2], b[0] - a[2], 0.0)
    dy = max(a[1] - b[3], b[1] - a[3], 0.0)
    return float(np.hypot(dx, dy))


_CHECKS: dict[str, Callable[[Seen], bool]] = {
    "fall": _falls,
    "bounce": _bounces,
    "roll": _travels,
    "slide": _travels,
    "throw": _thrown,
    "spin": _stays,
    "swing": _swings,
    "topple": _topples,
    "collide": _collides,
    "stay": _stays,
}
