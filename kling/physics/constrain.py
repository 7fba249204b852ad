"""The nearest lawful trajectory to one that a person drew or a model proposed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from kling.physics.fit import Fit, Seen, Spread, fit
from kling.physics.simulate import Body


def constrain(
    bodies: Sequence[Body], drawn_m: Float[np.ndarray, "f k 3"], *, fps: float, gravity_m_s2: float = 9.81,
    looseness_m: float = 0.05, properties_may_change: bool = True,
) -> Fit:  # fmt: skip
    """Throw the bodies so that they go as nearly as they can where they were drawn.

    Args:
        bodies: what moves: shapes, sizes and materials.
        drawn_m: wanted centres over the clip; NaN where nothing was drawn. It may break every law.
        looseness_m: how exactly a person draws: deviations well above it pull, below it do not matter.
        properties_may_change: friction and restitution may leave the bodies' own by a half; otherwise only the first
            place and velocity are free.

    Returns:
        ``motion`` is the lawful trajectory, ``rms`` its distance (m) from the drawn one, ``bodies`` how to start it.
        Gravity is kept: a drawing of a ball that falls upwards gives the ball thrown so that it comes nearest.

    Raises:
        InputError: fewer than two drawn frames, or shapes that do not fit.
    """
    loose = 0.5 if properties_may_change else 0.0
    spread = Spread(position_m=4 * looseness_m, velocity_m_s=5.0, friction=loose, restitution=loose / 2, gravity=0.0)
    seen = Seen(track=np.asarray(drawn_m, dtype=np.float64), fps=fps, sigma=looseness_m, observe=lambda places: places)
    return fit(bodies, seen, gravity_m_s2=gravity_m_s2, spread=spread)
