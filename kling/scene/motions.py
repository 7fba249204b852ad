"""What initial state makes an action happen: one function an action, in one table.

Each is given the event, the body and the world, and returns a Start. Speeds are chosen so that the action is over, or
plainly under way, within the time that is left, whatever gravity is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kling.prompt import knowledge
from kling.prompt.graph import Event

Vec3 = tuple[float, float, float]
_TOWARDS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "toward": (0.0, -1.0), "away": (0.0, 1.0)}
_LYING_X = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)  # the body's z axis along the world's x
_LYING_Y = (math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0)  # along the world's y


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a body starts, relative to its place on the floor."""

    velocity_m_s: Vec3 = (0.0, 0.0, 0.0)
    spin_rad_s: Vec3 = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    lying: bool = False
    lift_m: float = 0.0  # above where it would rest
    offset_m: Vec3 = (0.0, 0.0, 0.0)  # from its place to where it starts (a raised pendulum)
    rope_m: float = 0.0  # hangs on a rope of this length
    travel_m: tuple[float, float] = (0.0, 0.0)  # roughly where to, on the floor, within the clip
    moves_s: float = 0.0
    release_s: float = 0.0
    fixed: bool = False
    friction: float | None = None  # where the action needs another one than the material's
    restitution: float | None = None

    def rest_m(self, half: Vec3, proxy: str) -> float:
        """Height of the middle when it rests on the floor."""
        return half[0] if self.lying or proxy == "ball" else half[2]

    def shares(self, count: int) -> np.ndarray:
        """How much of the travel is done at ``count`` moments from start to end."""
        return np.linspace(0.0, 1.0, count)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What a motion needs to know."""

    event: Event
    proxy: str
    half: Vec3
    friction: float
    restitution: float
    gravity: float
    time_s: float
    rng: np.random.Generator
    doubts: list[str]

    def pick(self, slow: float, usual: float, fast: float) -> float:
        """A value by the event's speed word, with 8 % of variety."""
        value = {"slow": slow, "fast": fast}.get(self.event.speed or "", usual)
        return value * float(self.rng.uniform(0.92, 1.08))

    def heading(self) -> np.ndarray:
        """Unit vector on the floor: the said direction within 9 degrees, else mostly sideways."""
        known = _TOWARDS.get(self.event.direction or "")
        if known is None:
            known = _TOWARDS[str(self.rng.choice(list(_TOWARDS), p=[0.38, 0.38, 0.14, 0.10]))]
        angle = math.atan2(known[1], known[0]) + math.radians(float(self.rng.uniform(-9, 9)))
        return np.array([math.cos(angle), math.sin(angle)])


def start_of(
    event, proxy, half, friction, restitution, gravity, time_s, rng, doubts: list[str], *, scale: float = 1.0
) -> Start:
    """The initial state that makes ``event`` happen within ``time_s``; doubts are appended where it cannot.

    Args:
        scale: the motion is this much larger than the playground's: found in a world whose unit of length is so many
            metres, and enlarged. A truck drives lengths of trucks, an apple rolls lengths of apples.
    """
    case = _Case(
        event=event, proxy=proxy, half=tuple(a / scale for a in half), friction=friction, restitution=restitution,
        gravity=gravity / scale,
        time_s=max(time_s, 0.2), rng=rng, doubts=doubts,
    )  # fmt: skip
    if event.action not in MOTIONS:
        doubts.append(f"{event.action}: an action this world does not have; {event.agent} stays where it is")
        return at_rest(proxy, rng)
    return _enlarged(MOTIONS[event.action](case), scale)


def _enlarged(start: Start, scale: float) -> Start:
    """Lengths and speeds times ``scale``; times and angles stay."""
    if scale == 1.0:
        return start
    lengths = ("velocity_m_s", "offset_m", "travel_m")
    return replace(
        start,
        lift_m=start.lift_m * scale,
        rope_m=start.rope_m * scale,
        **{name: tuple(float(value) * scale for value in getattr(start, name)) for name in lengths},
    )


def at_speed(start: Start, speed_m_s: float) -> Start:
    """The same start, as fast over the floor as was said; what rolls keeps rolling without slipping."""
    x, y, z = start.velocity_m_s
    over = math.hypot(x, y)
    if not over:
        return start
    faster = speed_m_s / over
    return replace(
        start,
        velocity_m_s=(x * faster, y * faster, z),
        spin_rad_s=tuple(float(spin) * faster for spin in start.spin_rad_s),
        travel_m=tuple(float(way) * faster for way in start.travel_m),
    )


def at_rest(proxy: str, rng: np.random.Generator) -> Start:
    """A capsule lies, everything else stands."""
    if proxy == "capsule":
        return Start(lying=True, quaternion=_LYING_X if rng.random() < 0.7 else _LYING_Y)
    return Start()


def _stay(case: _Case) -> Start:
    return at_rest(case.proxy, case.rng)


def _across(heading: np.ndarray) -> tuple[float, float, float, float]:
    """A lying body whose axis is horizontal and across ``heading``: it rolls that way."""
    angle = math.atan2(heading[1], heading[0]) + math.pi / 2
    return _lying(angle)


def _lying(angle: float) -> tuple[float, float, float, float]:
    """The body's z axis horizontal, at ``angle`` from the world's x."""
    half = angle / 2  # yaw by the angle after tipping z onto x
    r = math.sqrt(0.5)
    return (math.cos(half) * r, -math.sin(half) * r, math.cos(half) * r, math.sin(half) * r)


def _rolling(case: _Case, heading: np.ndarray, speed: float) -> Start:
    radius = case.half[0]
    time_s = min(case.time_s, 2.5)
    spin = speed / radius
    lying = case.proxy != "ball"
    return Start(
        velocity_m_s=(heading[0] * speed, heading[1] * speed, 0.0),
        spin_rad_s=(-heading[1] * spin, heading[0] * spin, 0.0),
        quaternion=_across(heading) if lying else (1.0, 0.0, 0.0, 0.0),
        lying=lying,
        travel_m=(heading[0] * speed * time_s, heading[1] * speed * time_s),
    )


def _roll(case: _Case) -> Start:
    if case.proxy not in knowledge.ROLLS:
        case.doubts.append(f"a {case.proxy} does not roll; {case.event.agent} slides")
        return _slide(case)
    return _rolling(case, case.heading(), case.pick(0.38, 0.70, 1.15))


def _sliding(case: _Case, heading: np.ndarray, distance: float, end_speed: float = 0.0) -> Start:
    lying = case.proxy == "capsule"
    # What is taller than friction allows would trip over its own foot: it glides.
    tall = not lying and case.friction * case.half[2] > case.half[0]
    friction = 0.5 * case.half[0] / case.half[2] if tall else case.friction
    speed = math.sqrt(2 * friction * case.gravity * distance + end_speed**2) or distance / case.time_s
    return Start(
        velocity_m_s=(heading[0] * speed, heading[1] * speed, 0.0),
        quaternion=_lying(math.atan2(heading[1], heading[0])) if lying else (1.0, 0.0, 0.0, 0.0),
        lying=lying,
        travel_m=(heading[0] * distance, heading[1] * distance),
        friction=friction if tall else None,
    )


def _slide(case: _Case) -> Start:
    return _sliding(case, case.heading(), case.pick(0.40, 0.75, 1.15))


def _drop_m(case: _Case, share: float, height: float) -> float:
    """A height that takes at most ``share`` of the time to fall."""
    if case.gravity <= 0:
        return 0.6
    return min(height, 0.5 * case.gravity * (share * case.time_s) ** 2)


def _fall(case: _Case) -> Start:
    rest = at_rest(case.proxy, case.rng)
    height = _drop_m(case, 0.6, float(case.rng.uniform(0.9, 1.25)))
    down = 0.0
    if case.gravity <= 0:
        case.doubts.append(f"nothing falls without gravity; {case.event.agent} is pushed down")
        down = -0.5
    restitution = None if case.restitution > 0.5 else min(case.restitution, 0.25)
    return Start(
        lift_m=height, quaternion=rest.quaternion, lying=rest.lying, velocity_m_s=(0, 0, down), restitution=restitution
    )


def _bounce(case: _Case) -> Start:
    rest = at_rest(case.proxy, case.rng)
    height = _drop_m(case, 0.33, float(case.rng.uniform(0.85, 1.15)))
    heading, speed = np.zeros(2), 0.0
    if case.event.direction in _TOWARDS:
        heading, speed = case.heading(), case.pick(0.3, 0.5, 0.8)
    time_s = min(case.time_s, 2.5)
    return Start(
        lift_m=height,
        quaternion=rest.quaternion,
        lying=rest.lying,
        velocity_m_s=(heading[0] * speed, heading[1] * speed, 0.0 if case.gravity > 0 else -0.8),
        travel_m=(heading[0] * speed * time_s, heading[1] * speed * time_s),
        restitution=max(case.restitution, 0.75),
    )


def _throw(case: _Case) -> Start:
    flight = min(0.75, 0.62 * case.time_s)
    up = max(case.gravity * flight / 2, 0.9) if case.gravity > 0 else 0.4
    if case.event.direction == "up":
        return Start(velocity_m_s=(0.0, 0.0, up), spin_rad_s=_tumble(case))
    heading, speed = case.heading(), case.pick(0.75, 1.15, 1.6)
    distance = speed * min(case.time_s, flight * 1.5)
    return Start(
        velocity_m_s=(heading[0] * speed, heading[1] * speed, up),
        spin_rad_s=_tumble(case),
        travel_m=(heading[0] * distance, heading[1] * distance),
    )


def _tumble(case: _Case) -> Vec3:
    x, y, z = case.rng.uniform(-2.5, 2.5, 3)
    return (float(x), float(y), float(z))


def _spin(case: _Case) -> Start:
    rest = at_rest(case.proxy, case.rng)
    sense = -1.0 if case.event.direction == "right" else 1.0 if case.event.direction == "left" else 0.0
    sense = sense or float(case.rng.choice([-1.0, 1.0]))
    rate = case.pick(2.2, 3.6, 5.4) * sense
    # Friction would stop a cube in a fraction of a second: what spins stands on something smooth.
    return Start(spin_rad_s=(0.0, 0.0, rate), quaternion=rest.quaternion, lying=rest.lying, friction=0.01)


def _swing(case: _Case) -> Start:
    length = case.pick(0.85, 0.65, 0.45)
    angle = math.radians(case.pick(30, 40, 48))
    side = case.heading() if case.event.direction else np.array([case.rng.choice([-1.0, 1.0]), 0.0])
    # It swings towards the said direction first, so it starts on the other side.
    reach = length * math.sin(angle)
    offset = (-side[0] * reach, -side[1] * reach, length * (1 - math.cos(angle)))
    velocity = (0.0, 0.0, 0.0)
    if case.gravity < 0.5:
        velocity = (side[0] * 0.9, side[1] * 0.9, 0.0)
    return Start(
        lift_m=float(case.rng.uniform(0.12, 0.3)),
        rope_m=length,
        offset_m=offset,
        velocity_m_s=velocity,
        travel_m=(0.0, 0.0),
    )


def _topple(case: _Case) -> Start:
    if case.proxy not in knowledge.TOPPLES:
        case.doubts.append(f"a {case.proxy} cannot topple; {case.event.agent} rolls")
        return _roll(case)
    heading = case.heading()
    radius, height = case.half[0], case.half[2] * (0.5 if case.proxy == "cone" else 1.0)
    if case.proxy == "capsule":
        radius *= 0.3  # a round end: it tips almost by itself
    arm = math.hypot(radius, height)
    climb = arm - height
    gravity = case.gravity or 2.0
    rate = math.sqrt(2 * gravity * climb * 1.9 / (1.33 * arm**2)) + 0.6
    axis = np.array([-heading[1], heading[0], 0.0])  # z cross heading
    spin = axis * rate
    edge = np.array([heading[0] * radius, heading[1] * radius, -case.half[2]])
    velocity = np.cross(spin, -edge)
    length = case.half[2] * 1.2
    return Start(
        velocity_m_s=(float(velocity[0]), float(velocity[1]), float(velocity[2])),
        spin_rad_s=(float(spin[0]), float(spin[1]), 0.0),
        travel_m=(heading[0] * length, heading[1] * length),
    )


def _collide(case: _Case) -> Start:
    """Runs into its target, which stands at the end of the travel, in the middle of the time."""
    heading = case.heading()
    distance = float(case.rng.uniform(0.95, 1.2))
    speed = case.pick(0.65, 1.0, 1.6)
    speed = max(speed, distance / (0.65 * case.time_s))
    if case.proxy in knowledge.ROLLS:
        start = _rolling(case, heading, speed)
    else:
        start = _sliding(case, heading, distance, end_speed=speed * 0.7)
    return replace(start, travel_m=(heading[0] * distance, heading[1] * distance))


MOTIONS: dict[str, Callable[[_Case], Start]] = {
    "fall": _fall,
    "bounce": _bounce,
    "roll": _roll,
    "slide": _slide,
    "throw": _throw,
    "spin": _spin,
    "swing": _swing,
    "topple": _topple,
    "collide": _collide,
    "stay": _stay,
}
