"""Rigid bodies under the laws of motion: MuJoCo, SI units, plain arrays in and out.

Contacts are springs with a damper, stiff enough to look rigid and soft enough to be integrated: `_CONTACT_RAD_S` fixes
the spring, and the damper follows from the restitution by a measured table. Restitution and friction belong to bodies,
not to the floor: against the floor a body's own values hold, between two bodies the smaller restitution and the larger
friction.

Not modelled: air, deformation, breaking, liquids, cloth.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from kling.errors import InputError
from kling.physics.laws import EVERY_LAW, Laws, repeal

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]

SHAPES = ("ball", "cube", "cylinder", "capsule", "cone")
FLOOR = "floor"
_STEP_S = 0.002  # at most: a whole number of steps makes a frame
_CONTACT_RAD_S = 160.0  # a contact lasts about pi / 160 s = 20 ms, 10 steps
_SAMPLED = 2  # contacts are gathered every so many steps: looking costs as much as moving
_ROLLING = 0.012  # rolling resistance over radius: a ball on short grass
_TWISTING_M = 0.006  # lever of the friction that slows a spin on the spot
_CONE_SIDES = 24


@dataclass(frozen=True, kw_only=True)
class Body:
    """A rigid body of uniform density in its initial state (world frame, z up, floor at z = 0).

    ``half_size_m`` follows kling.scene.plan.PlannedObject; the origin is the middle of the bounding box.
    """

    name: str
    shape: str
    half_size_m: Vec3
    mass_kg: float
    friction: float
    restitution: float
    position_m: Vec3
    quaternion: Quat = (1.0, 0.0, 0.0, 0.0)
    velocity_m_s: Vec3 = (0.0, 0.0, 0.0)
    angular_velocity_rad_s: Vec3 = (0.0, 0.0, 0.0)  # world axes
    fixed: bool = False
    pivot_m: Vec3 | None = None  # hangs from this point by a weightless rigid rod
    release_s: float = 0.0  # held where it is until then; its velocities count from there


@dataclass(frozen=True, kw_only=True)
class Push:
    """At ``time_s`` the body is given these velocities (world axes)."""

    body: str
    time_s: float
    velocity_m_s: Vec3
    angular_velocity_rad_s: Vec3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Touch:
    """Two bodies touch between the frame before and this one (frame 0: at the start, impulse 0)."""

    frame: int
    a: str
    b: str  # a body, or FLOOR
    impulse_n_s: float  # normal impulse over that interval
    point_m: Vec3  # where the force was greatest


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What happens: f frames of k bodies, world axes."""

    position_m: np.ndarray  # f k 3
    quaternion: np.ndarray  # f k 4
    velocity_m_s: np.ndarray  # f k 3
    angular_velocity_rad_s: np.ndarray  # f k 3
    touches: tuple[Touch, ...]


def simulate(
    bodies: tuple[Body, ...],
    *,
    num_frames: int,
    fps: float,
    gravity_m_s2: float = 9.81,
    pushes: tuple[Push, ...] = (),
    laws: Laws = EVERY_LAW,
) -> Motion:
    """Let the bodies move; states at i / fps seconds. ``laws`` can be left out one by one, for ablations.

    Raises:
        InputError: an unknown shape, two bodies of one name, a push of an unknown body, or an unstable scene.
    """
    _check(bodies, pushes)
    steps, step_s = timing(fps)
    model = _compile(bodies, gravity_m_s2)
    model.opt.timestep = step_s
    repeal(model, laws, dead_damping=2 * damping_ratio(0.0) * _CONTACT_RAD_S)
    data = mujoco.MjData(model)
    run = _Run(model, data, bodies, num_frames)
    held = [i for i, body in enumerate(bodies) if not body.fixed and body.release_s > 0]
    for i, body in enumerate(bodies):
        if not body.fixed and i not in held:
            run.set_velocity(i, body.velocity_m_s, body.angular_velocity_rad_s)
    mujoco.mj_forward(model, data)
    run.look(0, 0.0)
    run.record(0)
    waiting = sorted(pushes, key=lambda push: push.time_s)
    step = 0
    for frame in range(1, num_frames):
        while step < frame * steps:
            time_s = step * step_s + 1e-9
            for i in [i for i in held if bodies[i].release_s <= time_s]:
                held.remove(i)
                run.set_velocity(i, bodies[i].velocity_m_s, bodies[i].angular_velocity_rad_s)
            while waiting and waiting[0].time_s <= time_s:
                push = waiting.pop(0)
                run.set_velocity(run.index[push.body], push.velocity_m_s, push.angular_velocity_rad_s)
            # Up to the next look in one call, unless something is to be done on the way.
            busy = held or (waiting and waiting[0].time_s <= time_s + _SAMPLED * step_s)
            count = 1 if busy else min(_SAMPLED - step % _SAMPLED, frame * steps - step)
            mujoco.mj_step(model, data, count)
            for i in held:
                run.hold(i)
            step += count
            if step % _SAMPLED == 0:
                run.look(frame, _SAMPLED * step_s)
        run.record(frame)
    if not np.isfinite(run.position).all() or data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number:
        raise InputError(
            "the simulation is unstable", where=", ".join(b.name for b in bodies), fix="Separate the objects"
        )
    return Motion(
        position_m=run.position,
        quaternion=run.quaternion,
        velocity_m_s=run.velocity,
        angular_velocity_rad_s=run.spin,
        touches=tuple(run.touches()),
    )


def timing(fps: float) -> tuple[int, float]:
    """Steps a frame and seconds a step: frames fall on steps, so that speeds and places belong together."""
    steps = math.ceil(1 / (fps * _STEP_S) - 1e-9)
    return steps, 1 / (fps * steps)


class _Run:
    """State of one simulation: records frames and gathers contact impulses."""

    def __init__(self, model, data, bodies: tuple[Body, ...], num_frames: int):
        self.model, self.data, self.bodies = model, data, bodies
        self.index = {body.name: i for i, body in enumerate(bodies)}
        shape = (num_frames, len(bodies))
        self.position, self.velocity, self.spin = (np.zeros((*shape, 3)) for _ in range(3))
        self.quaternion = np.zeros((*shape, 4))
        self._looks: list[tuple[int, float, np.ndarray, np.ndarray, np.ndarray]] = []
        self._held = [self._coordinates(i) for i in range(len(bodies))]

    def record(self, frame: int) -> None:
        moved = np.zeros(6)
        mujoco.mj_kinematics(self.model, self.data)  # positions after a step's integration, not before it
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_comVel(self.model, self.data)
        for i in range(len(self.bodies)):
            mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_XBODY, i + 1, moved, 0)
            self.spin[frame, i], self.velocity[frame, i] = moved[:3], moved[3:]
        self.position[frame] = self.data.xpos[1:]
        self.quaternion[frame] = self.data.xquat[1:]

    def look(self, frame: int, step_s: float) -> None:
        """Note the contacts of this moment, which stands for ``step_s`` (0: only that they are)."""
        contact = self.data.contact
        if not self.data.ncon:
            return
        rows = contact.efc_address  # of each contact's normal force; below 0: it only just touches, and has none
        force = np.where(rows >= 0, self.data.efc_force[rows], 0.0) if self.data.nefc else np.zeros(len(rows))
        self._looks.append((frame, step_s, contact.geom.copy(), force, contact.pos.copy()))  # they are views

    def touches(self) -> Iterator[Touch]:
        """The contacts noted, one a frame and pair: impulses summed, the place of the greatest force."""
        if not self._looks:
            return
        counts = [len(force) for *_, force, _ in self._looks]
        frame = np.repeat([look[0] for look in self._looks], counts)
        step_s = np.repeat([look[1] for look in self._looks], counts)
        pair, force, point = (np.concatenate([look[n] for look in self._looks]) for n in (2, 3, 4))
        met = (force > 0) | (step_s == 0)
        keys = np.column_stack([frame, pair.min(axis=1), pair.max(axis=1)])[met]  # geom 0 is the floor, i + 1 body i
        force, point = force[met], point[met]
        found, which = np.unique(keys, axis=0, return_inverse=True)
        impulse = np.bincount(which.ravel(), weights=force * step_s[met], minlength=len(found))
        order = np.lexsort((np.arange(len(force)), -force, which.ravel()))
        greatest = point[order[np.searchsorted(which.ravel()[order], np.arange(len(found)))]]
        names = [FLOOR, *(body.name for body in self.bodies)]
        for n, (at, a, b) in enumerate(found.tolist()):
            first, second = (names[b], FLOOR) if a == 0 else (names[a], names[b])
            x, y, z = greatest[n].tolist()
            yield Touch(frame=at, a=first, b=second, impulse_n_s=float(impulse[n]), point_m=(x, y, z))

    def set_velocity(self, i: int, velocity: Vec3, spin: Vec3) -> None:
        body, joint = self.bodies[i], self.model.body_jntadr[i + 1]
        if joint < 0:
            return  # a fixed body cannot be pushed
        start = self.model.jnt_dofadr[joint]
        if body.pivot_m is not None:  # about the hinge: the part of the velocity across the rod
            axis = self.data.xaxis[joint] if self.data.time else _hinge_axis(body)
            arm = np.subtract(body.position_m, body.pivot_m) if not self.data.time else (
                self.data.xpos[i + 1] - np.asarray(body.pivot_m)
            )  # fmt: skip
            self.data.qvel[start] = float(np.dot(np.cross(axis, arm), velocity) / max(np.dot(arm, arm), 1e-9))
            return
        self.data.qvel[start : start + 3] = velocity
        inverse, local = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(inverse, self.data.qpos[self.model.jnt_qposadr[joint] + 3 :][:4])
        mujoco.mju_rotVecQuat(local, np.asarray(spin, float), inverse)  # MuJoCo wants the spin in the body's axes
        self.data.qvel[start + 3 : start + 6] = local

    def hold(self, i: int) -> None:
        place, start, velocity = self._held[i]
        place[:] = start
        velocity[:] = 0

    def _coordinates(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of a body's place and velocity in the simulation, and its place as it starts; empty for a fixed one."""
        joint = self.model.body_jntadr[i + 1]
        if joint < 0:
            return self.data.qpos[:0], self.data.qpos[:0], self.data.qvel[:0]
        hangs = self.bodies[i].pivot_m is not None
        place, speed = self.model.jnt_qposadr[joint], self.model.jnt_dofadr[joint]
        view = self.data.qpos[place : place + (1 if hangs else 7)]
        return view, view.copy(), self.data.qvel[speed : speed + (1 if hangs else 6)]


def _check(bodies: tuple[Body, ...], pushes: tuple[Push, ...]) -> None:
    names = [body.name for body in bodies]
    if len(set(names)) != len(names) or FLOOR in names:
        raise InputError("two bodies have the same name", where=", ".join(names))
    for body in bodies:
        if body.shape not in SHAPES:
            raise InputError("unknown shape", where=body.shape, fix=f"Choose one of: {', '.join(SHAPES)}")
    for push in pushes:
        if push.body not in names:
            raise InputError("a push of an unknown body", where=push.body)


def damping_ratio(restitution: float) -> float:
    """The damping ratio of a contact's spring that gives this restitution; 0.09 and less cannot be told apart."""
    return float(np.interp(-restitution, -_RESTITUTION, _RATIO))


# Measured in this simulation (tests/kling/test_simulate.py measures again): balls dropped from 0.3 to 2.2 m. A single
# spring and damper would give a little less, because the solver softens the onset of a contact.
_RATIO = np.array([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3])
_RESTITUTION = np.array(
    [0.995, 0.938, 0.863, 0.752, 0.654, 0.579, 0.454, 0.366, 0.296, 0.246, 0.204, 0.173, 0.126, 0.084]
)


def _compile(bodies: tuple[Body, ...], gravity_m_s2: float):
    spec = mujoco.MjSpec()
    spec.option.timestep = _STEP_S
    spec.option.gravity = [0, 0, -gravity_m_s2]
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # row 0 of a contact is its normal force
    spec.option.impratio = 5  # friction holds: little creep
    spec.option.iterations = 20
    if any(body.shape == "cone" for body in bodies):
        spec.add_mesh(
            name="cone", uservert=cone_vertices().ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        )
    spec.worldbody.add_geom(name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], **_contact(1.0, 0.0, 0))
    for body in bodies:
        _add_body(spec, body)
    return spec.compile()


def _add_body(spec, body: Body) -> None:
    part = spec.worldbody.add_body(name=body.name, pos=body.position_m, quat=body.quaternion)
    if body.pivot_m is not None and not body.fixed:
        inverse, axis, arm = np.zeros(4), np.zeros(3), np.zeros(3)
        mujoco.mju_negQuat(inverse, np.asarray(body.quaternion, float))
        mujoco.mju_rotVecQuat(axis, _hinge_axis(body), inverse)
        mujoco.mju_rotVecQuat(arm, np.subtract(body.pivot_m, body.position_m), inverse)
        part.add_joint(type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis, pos=arm)
    elif not body.fixed:
        part.add_freejoint()
    a, b, c = body.half_size_m
    kinds = mujoco.mjtGeom
    shape = {
        "ball": {"type": kinds.mjGEOM_SPHERE, "size": [a, 0, 0]},
        "cube": {"type": kinds.mjGEOM_BOX, "size": [a, b, c]},
        "cylinder": {"type": kinds.mjGEOM_CYLINDER, "size": [a, c, 0]},
        "capsule": {"type": kinds.mjGEOM_CAPSULE, "size": [a, max(c - a, 1e-3), 0]},
        "cone": {"type": kinds.mjGEOM_MESH, "meshname": _cone_mesh(spec, a, c) if body.shape == "cone" else ""},
    }[body.shape]
    round_radius = min(a, b) if body.shape in ("ball", "capsule") else 0.0
    part.add_geom(mass=body.mass_kg, **shape, **_contact(body.friction, body.restitution, 1, round_radius))


def _cone_mesh(spec, radius: float, half_height: float) -> str:
    name = f"cone_{radius:.6f}_{half_height:.6f}"
    if not any(mesh.name == name for mesh in spec.meshes):
        vertices = cone_vertices() * [radius, radius, half_height]
        spec.add_mesh(name=name, uservert=vertices.ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX)
    return name


def cone_vertices() -> np.ndarray:
    """n 3: base circle of radius 1 at z = -1, tip at z = 1."""
    angles = np.arange(_CONE_SIDES) * 2 * np.pi / _CONE_SIDES
    base = np.stack([np.cos(angles), np.sin(angles), -np.ones_like(angles)], axis=1)
    return np.concatenate([base, [[0.0, 0.0, 1.0]]])


def _hinge_axis(body: Body) -> np.ndarray:
    """Across the plane in which the body swings: the plane of the rod and the vertical, or of rod and velocity."""
    assert body.pivot_m is not None, "only what hangs has a hinge"
    arm = np.subtract(body.position_m, body.pivot_m)
    for other in ((0.0, 0.0, -1.0), body.velocity_m_s, (1.0, 0.0, 0.0)):
        axis = np.cross(arm, other)
        if np.linalg.norm(axis) > 1e-3 * np.linalg.norm(arm):
            return axis / np.linalg.norm(axis)
    return np.array([0.0, 1.0, 0.0])


def _contact(friction: float, restitution: float, priority: int, round_radius: float = 0.0) -> dict:
    damping = 2 * damping_ratio(restitution) * _CONTACT_RAD_S
    return {
        "friction": [friction, _TWISTING_M * friction, _ROLLING * round_radius],
        "condim": 6 if round_radius else 4,
        "priority": priority,
        "solref": [-(_CONTACT_RAD_S**2), -damping],
        "solimp": [0.99, 0.99, 0.001, 0.5, 2],
    }
