"""Many variants of one scene at once: the same bodies with other starts, frictions, restitutions, gravities.

Equal to `simulate` step for step (a test holds them equal), but the model is compiled once and the steps run in
MuJoCo's own loop. Bodies that hang or are held until a release are simulated one by one, because those are done
between steps.
"""

import copy
from collections.abc import Sequence

import mujoco
import numpy as np
from jaxtyping import Float
from mujoco import rollout

from kling.physics import simulate as one
from kling.physics.simulate import Body

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS


class Batch:
    """Simulates variants of one set of bodies."""

    def __init__(self, bodies: Sequence[Body], *, num_frames: int, fps: float):
        self.num_frames, self.fps = num_frames, fps
        self._alone = any(body.pivot_m is not None or body.release_s > 0 for body in bodies)
        self._model = one._compile(tuple(bodies), 9.81)
        self._models: list[mujoco.MjModel] = []
        self._data = mujoco.MjData(self._model)
        # The step after which each frame is taken, as `simulate` counts them.
        steps, self._model.opt.timestep = one.timing(fps)
        self._ends = steps * np.arange(1, num_frames)

    def run(self, variants: Sequence[tuple[tuple[Body, ...], float]]) -> Float[np.ndarray, "n f k 3"]:
        """Positions (m) of each variant: (bodies of the same names and shapes, gravity in m/s^2).

        A variant that becomes unstable has NaN from there on.
        """
        if self._alone:
            made = [
                one.simulate(bodies, num_frames=self.num_frames, fps=self.fps, gravity_m_s2=gravity).position_m
                for bodies, gravity in variants
            ]
            return np.stack(made)
        while len(self._models) < len(variants):
            self._models.append(copy.copy(self._model))
        models = self._models[: len(variants)]
        states = np.stack([self._state(m, *variant) for m, variant in zip(models, variants, strict=True)])
        first = np.array([[body.position_m for body in bodies] for bodies, _ in variants])  # n k 3
        out = np.repeat(first[:, None], self.num_frames, axis=1)
        free = [i for i, body in enumerate(variants[0][0]) if not body.fixed]
        if not len(self._ends) or not free:
            return out
        rolled, _ = rollout.rollout(models, self._data, states, nstep=int(self._ends[-1]))
        taken = np.asarray(rolled)[:, self._ends - 1]  # n f-1 s
        for n, i in enumerate(free):
            out[:, 1:, i] = taken[..., 1 + 7 * n : 4 + 7 * n]  # after time: 7 coordinates a body, place first
        return np.where(np.abs(out) < 1e4, out, np.nan)

    def _state(self, model: mujoco.MjModel, bodies: tuple[Body, ...], gravity_m_s2: float) -> np.ndarray:
        """Write a variant into a model; returns its initial state."""
        model.opt.gravity[:] = (0, 0, -gravity_m_s2)
        data = self._data
        mujoco.mj_resetData(model, data)
        run = one._Run(model, data, bodies, 1)
        for i, body in enumerate(bodies):
            geom, joint = model.body_geomadr[i + 1], model.body_jntadr[i + 1]
            round_radius = min(body.half_size_m[:2]) if body.shape in ("ball", "capsule") else 0.0
            contact = one._contact(body.friction, body.restitution, 1, round_radius)
            model.geom_friction[geom], model.geom_solref[geom] = contact["friction"], contact["solref"]
            if joint < 0:
                continue
            place = model.jnt_qposadr[joint]
            data.qpos[place : place + 3], data.qpos[place + 3 : place + 7] = body.position_m, body.quaternion
            run.set_velocity(i, body.velocity_m_s, body.angular_velocity_rad_s)
        state = np.zeros(mujoco.mj_stateSize(model, _STATE))
        mujoco.mj_getState(model, data, state, _STATE)
        return state
