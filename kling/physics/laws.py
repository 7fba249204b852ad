"""The laws of motion as switches, so that what each one is worth can be measured by leaving it out."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import mujoco

from kling.errors import ConfigError

# Without inertia a body moves only as fast as a force drags it, as Aristotle thought: its speed decays in 1/10 s.
_DRAG_PER_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Laws:
    """Which laws hold. All of them, unless an ablation says otherwise."""

    gravity: bool = True
    inertia: bool = True
    friction: bool = True
    restitution: bool = True  # without: nothing bounces
    solidity: bool = True  # without: bodies pass through each other (the floor still carries them)

    @classmethod
    def without(cls, names: Iterable[str]) -> "Laws":
        """All laws but these.

        Raises:
            ConfigError: not a law.
        """
        known = [field.name for field in fields(cls)]
        off = {}
        for name in names:
            if name not in known:
                raise ConfigError("unknown law of motion", where=repr(name), fix=f"Choose from: {', '.join(known)}")
            off[name] = False
        return cls(**off)


EVERY_LAW = Laws()


def repeal(model: mujoco.MjModel, laws: Laws, dead_damping: float) -> None:
    """Take the laws that do not hold out of a compiled model, in place.

    Args:
        model: body 0 is the world and holds the floor.
        dead_damping: the contact damping at which nothing bounces (direct solref format: minus damping).
    """
    if not laws.gravity:
        model.opt.gravity[:] = 0
    if not laws.inertia:
        for joint in range(model.njnt):
            free = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE
            start, mass = model.jnt_dofadr[joint], model.body_mass[model.jnt_bodyid[joint]]
            model.dof_damping[start : start + (3 if free else 1)] = _DRAG_PER_S * mass
            if free:
                model.dof_damping[start + 3 : start + 6] = _DRAG_PER_S * model.body_inertia[model.jnt_bodyid[joint]]
    if not laws.friction:
        model.geom_friction[:] = 1e-5  # the smallest MuJoCo takes
    if not laws.restitution:
        model.geom_solref[:, 1] = -dead_damping
    if not laws.solidity:
        # Two geoms meet when the type of either is in the affinity of the other: bodies only meet the floor's type.
        model.geom_contype[:], model.geom_conaffinity[:] = 0, 1
        model.geom_contype[model.geom_bodyid == 0] = 1
