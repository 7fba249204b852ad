"""Gravity, friction, restitution and the initial state, from the first frames of a clip.

Two kinds of tracks: metres (tracks lifted to 3-D) or picture coordinates with the cameras that saw them. Scale comes
from the bodies' known sizes and places; what the frames do not show keeps its default, and says so by its deviation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kling.errors import InputError
from kling.physics.fit import Fit, Seen, Spread, fit
from kling.physics.laws import EVERY_LAW, Laws
from kling.physics.simulate import Body, Motion, simulate

GRAVITY_M_S2 = 9.81


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the prompt already tells (world knowledge): how far each default may be trusted."""

    gravity_m_s2: float = GRAVITY_M_S2
    gravity_spread: float = 1.0  # standard deviation of its logarithm; 0: it is said ("on the moon")
    friction_spread: float = 1.0  # of its logarithm
    restitution_spread: float = 0.35
    position_m: float = 0.05  # of the given first places; used when tracks are in the picture
    velocity_m_s: float = 3.0
    spin_rad_s: float = 3.0


def estimate(
    bodies: Sequence[Body], position_m: Float[np.ndarray, "f k 3"], *, fps: float, sigma_m: float = 0.005,
    known: Known | None = None,
) -> Fit:  # fmt: skip
    """From tracks in metres.

    Args:
        bodies: shapes and sizes; friction, restitution and spin are defaults that what is seen corrects.
        position_m: centres in the first frames; NaN where a body was not seen.
        sigma_m: standard error of a tracked coordinate.

    Returns:
        The bodies as they were in the first frame (give them to `predict`), gravity, and standard deviations. A
        deviation about as large as the prior's spread means: the frames do not show it (nothing bounced, nothing slid).

    Raises:
        InputError: fewer than two frames seen, or shapes that do not fit.
    """
    known = known or Known()
    seen = Seen(track=np.asarray(position_m, dtype=np.float64), fps=fps, sigma=sigma_m, observe=lambda places: places)
    return _fit(bodies, seen, known, position_spread_m=4 * sigma_m)


def estimate_from_picture(
    bodies: Sequence[Body], track: Float[np.ndarray, "f k 2"], cameras: Float[np.ndarray, "f 3 4"], *, fps: float,
    sigma: float = 0.004, known: Known | None = None,
) -> Fit:  # fmt: skip
    """From tracks in the picture.

    Args:
        bodies: with their first places in metres as a plan, a ground plane or their known sizes give them.
        track: centres of the bodies in the picture, in the units that ``cameras`` project to.
        cameras: projection of each frame: world (x, y, z, 1) to (u w, v w, w).
        sigma: standard error of a tracked coordinate in those units.

    Raises:
        InputError: as `estimate`, or not one camera a frame.
    """
    known = known or Known()
    track, cameras = np.asarray(track, dtype=np.float64), np.asarray(cameras, dtype=np.float64)
    if cameras.shape != (len(track), 3, 4):
        raise InputError("one 3 x 4 camera a frame is needed", where=f"{cameras.shape} for {len(track)} frames")

    def observe(places: np.ndarray) -> np.ndarray:
        image = np.einsum("fij,fkj->fki", cameras[..., :3], places) + cameras[:, None, :, 3]
        return image[..., :2] / np.where(image[..., 2:] > 1e-6, image[..., 2:], np.nan)

    seen = Seen(track=track, fps=fps, sigma=sigma, observe=observe)
    return _fit(bodies, seen, known, position_spread_m=known.position_m)


def predict(found: Fit, *, num_frames: int, fps: float, laws: Laws = EVERY_LAW) -> Motion:
    """What happens next: the estimated scene simulated from its first frame. ``laws`` can be left out one by one."""
    return simulate(found.bodies, num_frames=num_frames, fps=fps, gravity_m_s2=found.gravity_m_s2, laws=laws)


def _fit(bodies: Sequence[Body], seen: Seen, known: Known, position_spread_m: float) -> Fit:
    spread = Spread(
        position_m=position_spread_m,
        velocity_m_s=known.velocity_m_s,
        friction=known.friction_spread,
        restitution=known.restitution_spread,
        gravity=known.gravity_spread,
        spin_rad_s=known.spin_rad_s,
    )
    return fit(bodies, seen, gravity_m_s2=known.gravity_m_s2, spread=spread)
