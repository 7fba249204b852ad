"""Camera moves by name, turned into keyframes: how a person says it, in metres and degrees a second.

    dolly in/out/left/right   the camera travels along its viewing axis, or sideways       m/s
    crane up/down             it rises or sinks, and keeps aiming at its target            m/s
    pan left/right            it turns about the vertical                                  deg/s
    tilt up/down              it looks up or down                                          deg/s
    roll left/right           its top leans to the left or right                           deg/s
    zoom in/out               the field of view narrows or widens                          deg/s
    orbit left/right          it travels to its left or right around the vertical through its target    deg/s
    static                    it stands still

Moves combine: all of them run at once, over the whole duration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kling.camera import poses
from kling.camera.path import Key
from kling.errors import ConfigError

Vec3 = tuple[float, float, float]

# The sign each direction stands for, along: forward, right, up (camera's for dolly, world's for crane); the sense of
# turns is worked out in `_pose`.
SIGNS: dict[str, dict[str | None, int]] = {
    "static": {None: 0},
    "dolly": {"in": 1, "out": -1, "right": 1, "left": -1},
    "crane": {"up": 1, "down": -1},
    "pan": {"left": 1, "right": -1},
    "tilt": {"up": 1, "down": -1},
    "roll": {"right": 1, "left": -1},
    "zoom": {"in": -1, "out": 1},
    "orbit": {"right": 1, "left": -1},
}
WORD_SPEEDS = {"slow": 0.55, None: 1.0, "fast": 1.7}  # times the usual speed

# Usual speeds: fractions of the distance to the target a second for travel (a move should look the same near and far),
# degrees a second for turns, and the share of the field of view a second for zoom.
_TRAVEL_PER_S = {"dolly in": 0.2, "dolly out": 0.3, "dolly left": 0.22, "dolly right": 0.22, "crane": 0.25}
_TURN_DEG_S = {"pan": 11.0, "tilt": 8.0, "roll": 15.0, "orbit": 24.0}
_ZOOM_PER_S = {"in": 0.22, "out": 0.3}
# How far a move at its usual speed goes at most, however long the clip: an unasked-for dolly must not run into its
# target, nor a pan leave it behind. An explicit speed is obeyed, except that a dolly in stops short of the target.
_MOST_TRAVEL = {"dolly in": 0.55, "dolly out": 1.2, "dolly left": 0.6, "dolly right": 0.6, "crane": 0.7}
_MOST_TURN_DEG = {"pan": 40.0, "tilt": 26.0, "roll": 90.0, "orbit": 180.0}
_MOST_ZOOM = {"in": 0.55, "out": 0.9}
_NEAREST = 0.2  # of the first distance
_LOWEST_M = 0.05  # above the floor: no move takes a camera through it
_FOV_RANGE_DEG = (5.0, 120.0)
_KEY_TURN_DEG = 15.0  # an arc of 15 degrees a key is drawn to 1e-5 of its radius


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move.

    ``speed`` is in m/s (dolly, crane) or deg/s (the others; zoom: of the vertical field of view), None the usual one
    for this distance times WORD_SPEEDS[``word``] times ``strength``.
    """

    kind: str
    direction: str | None = None
    speed: float | None = None
    word: str | None = None  # "slow", "fast"; counts when no speed is given
    strength: float = 1.0  # times the usual speed; counts when no speed is given
    aimed: bool = True  # a crane keeps aiming at its target; False: it only travels

    def __post_init__(self):
        if self.kind not in SIGNS:
            raise ConfigError("unknown camera move", where=repr(self.kind), fix=f"Choose one of: {', '.join(SIGNS)}")
        if self.direction not in SIGNS[self.kind]:
            known = ", ".join(str(d) for d in SIGNS[self.kind])
            raise ConfigError(f"{self.kind} has no such direction", where=repr(self.direction), fix=f"Use {known}")
        if self.speed is not None and not (np.isfinite(self.speed) and self.speed >= 0):
            raise ConfigError("a camera speed is zero or more", where=f"{self.name}: {self.speed}")
        if not (np.isfinite(self.strength) and self.strength >= 0):
            raise ConfigError("a camera move's strength is zero or more", where=f"{self.name}: {self.strength}")
        if self.word not in WORD_SPEEDS:
            raise ConfigError("unknown speed word", where=repr(self.word), fix="Use slow or fast, or a number")

    @property
    def name(self) -> str:
        """ "orbit left"."""
        return f"{self.kind} {self.direction}" if self.direction else self.kind

    @property
    def sign(self) -> int:
        return SIGNS[self.kind][self.direction]

    def amount(self, duration_s: float, distance_m: float, fov_y_deg: float) -> float:
        """How far it goes in all: metres or degrees, never negative."""
        word = WORD_SPEEDS[self.word] * self.strength
        if self.kind == "static":
            return 0.0
        if self.speed is not None:
            most, speed = np.inf, self.speed
        elif self.kind in ("dolly", "crane"):
            name = self.name if self.kind == "dolly" else "crane"
            most, speed = _MOST_TRAVEL[name] * distance_m, _TRAVEL_PER_S[name] * distance_m * word
        elif self.kind == "zoom":
            share = self.direction or "in"
            most, speed = _MOST_ZOOM[share] * fov_y_deg, _ZOOM_PER_S[share] * fov_y_deg * word
        else:
            most, speed = _MOST_TURN_DEG[self.kind], _TURN_DEG_S[self.kind] * word
        if self.name == "dolly in":
            most = min(most, (1 - _NEAREST) * distance_m)
        if self.name == "zoom in":
            most = min(most, fov_y_deg - _FOV_RANGE_DEG[0])
        if self.name == "zoom out":
            most = min(most, _FOV_RANGE_DEG[1] - fov_y_deg)
        return float(max(0.0, min(most, speed * duration_s)))


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera that looks at something. The target sets the scale of moves and the centre of orbits."""

    position_m: Vec3
    target_m: Vec3
    fov_y_deg: float = 40.0
    quaternion: tuple[float, float, float, float] | None = None  # None: it looks at the target, upright


@dataclass(frozen=True, kw_only=True)
class _State:
    """How far each move has gone, signed: metres and radians."""

    forward: float = 0.0
    right: float = 0.0
    up: float = 0.0
    free_up: float = 0.0
    pan: float = 0.0
    tilt: float = 0.0
    roll: float = 0.0
    orbit: float = 0.0
    fov_deg: float = 0.0


def move_keys(moves: Sequence[Move], start: View, duration_s: float, *, centered: bool = False) -> tuple[Key, ...]:
    """Keys of a camera that performs all ``moves`` together over ``duration_s``.

    Args:
        moves: empty means static.
        start: where the camera starts; with ``centered``, where it is half way, so that a pan or a sideways dolly
            begins before its subject and ends after it.

    Returns:
        At most one key per 15 degrees of turn, evenly spaced in time; one key for a camera that does not move.

    Raises:
        ConfigError: impossible duration or view.
    """
    if not (np.isfinite(duration_s) and duration_s > 0):
        raise ConfigError("a move needs a duration above zero", where=f"duration_s={duration_s}")
    distance = float(np.linalg.norm(np.subtract(start.target_m, start.position_m)))
    amounts = [move.amount(duration_s, distance, start.fov_y_deg) for move in moves]
    if not any(amounts):
        return (_key(0.0, start, _State()),)
    turned = max((a for m, a in zip(moves, amounts, strict=True) if m.kind not in ("dolly", "crane")), default=0.0)
    aims = any(m.kind == "crane" and m.aimed for m in moves)
    segments = max(4 if aims else 2, int(np.ceil(turned / _KEY_TURN_DEG)))
    keys = []
    for share in np.linspace(0.0, 1.0, segments + 1):
        state = _state(moves, amounts, float(share), centered)
        keys.append(_key(float(share) * duration_s, start, state))
    return tuple(keys)


def _state(moves: Sequence[Move], amounts: Sequence[float], share: float, centered: bool) -> _State:
    """How far the moves have gone after this share of the time."""
    total: dict[str, float] = {}
    for move, amount in zip(moves, amounts, strict=True):
        # Travel in depth and zoom start at the given view even when centred: half of them would change its scale.
        scales = move.name in ("dolly in", "dolly out") or move.kind == "zoom"
        done = move.sign * amount * (share - (0.5 if centered and not scales else 0.0))
        if move.kind == "dolly":
            name = "forward" if move.direction in ("in", "out") else "right"
        elif move.kind == "crane":
            name = "up" if move.aimed else "free_up"
        elif move.kind == "zoom":
            name = "fov_deg"
        else:
            name, done = move.kind, np.deg2rad(done)
        total[name] = total.get(name, 0.0) + float(done)
    total.pop("static", None)
    return _State(**total)


def _key(time_s: float, start: View, state: _State) -> Key:
    """The start view, moved. Travel is in the start's axes, then a crane re-aims, the orbit carries all of it round the
    target, and pan, tilt and roll turn the camera where it stands."""
    position = np.asarray(start.position_m, dtype=np.float64)
    target = np.asarray(start.target_m, dtype=np.float64)
    base = poses.look_at(position, target) if start.quaternion is None else poses.unit(np.array(start.quaternion))
    axes = poses.to_matrix(base)
    aim = target - position
    position = position + axes[:, 2] * state.forward + axes[:, 0] * state.right + poses.WORLD_UP * state.free_up
    if state.up:
        # Re-aim by the change of elevation, about the camera's own horizontal.
        aim = target - position if state.forward else aim
        across = float(np.hypot(aim[0], aim[1]))
        dip = np.arctan2(aim[2] - state.up, across) - np.arctan2(aim[2], across)
        position = position + poses.WORLD_UP * state.up
        base = poses.multiply(base, poses.about(np.array([1.0, 0, 0]), dip))
    around = poses.about(poses.WORLD_UP, state.orbit)
    position = target + poses.rotate(around, position - target)
    position[2] = max(position[2], min(_LOWEST_M, start.position_m[2]))
    turn = poses.multiply(around, poses.about(poses.WORLD_UP, state.pan))
    turn = poses.multiply(turn, base)
    turn = poses.multiply(turn, poses.about(np.array([1.0, 0, 0]), state.tilt))
    turn = poses.multiply(turn, poses.about(np.array([0, 0, 1.0]), state.roll))
    fov = float(np.clip(start.fov_y_deg + state.fov_deg, *_FOV_RANGE_DEG))
    x, y, z = position.tolist()
    qw, qx, qy, qz = poses.unit(turn).tolist()
    return Key(time_s=time_s, position_m=(x, y, z), quaternion=(qw, qx, qy, qz), fov_y_deg=fov)
