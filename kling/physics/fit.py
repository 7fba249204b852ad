"""Fit a simulation to what was seen: analysis by synthesis. `estimate` and `constrain` are two questions to it.

The unknowns are each body's first position and velocity (and the spin of a round one in flight, which shows when it
lands), its friction and restitution, and the scene's gravity. Their
least-squares problem has a residual for every seen coordinate (over its error) and one for every unknown (its distance
from the prior, over the prior's spread): a maximum a posteriori estimate, whose covariance is the inverse of J^T J. An
unknown that nothing seen depends on keeps its prior and the prior's spread, which is how a caller can tell.

Contacts make the problem bumpy: a few hypotheses (how bouncy, how slippery, how heavy, rolling or not) are simulated
first, and the best is refined. Unknowns of different bodies are perturbed in the same simulation, because bodies seldom
depend on each other: a refinement costs 11 pairs of simulations a step at most, however many bodies there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import OptimizeResult, least_squares

from kling.errors import ConfigError, InputError
from kling.physics.batch import Batch
from kling.physics.simulate import Body, Motion, simulate

# Order of a body's unknowns, after the scene's log gravity: x y z, vx vy vz, log friction, restitution, wx wy.
_PLACE, _VELOCITY, _FRICTION, _RESTITUTION, _SPIN = slice(0, 3), slice(3, 6), 6, 7, slice(8, 10)
_PER_BODY = 10
_STEPS = np.array(
    [0.01] * 3 + [0.06] * 3 + [0.05, 0.02] + [0.4] * 2
)  # finite differences, above the grain of a contact's step
_GRAVITY_STEP = 0.03
_ROUND = ("ball", "capsule", "cylinder")
_REFINED = 3  # of the hypotheses, the best are refined
_GOOD = 0.8  # half a squared deviation a coordinate is what errors alone leave
_BRIEF_FLIGHT = 0.15  # spread of log gravity where no flight is long enough to tell the Moon from the Earth
_AT_FIRST_S = 0.25  # what stays on the floor so long has not been thrown
_CLEAR_M = 0.03  # higher above its resting height than this, a body flies
# What no curvature shows, added to the bars. The step in which a contact begins changes the restitution of a bounce by
# 0.011 to 0.028 (one deviation over 25 heights, restitution 0.75 to 0.3), in the seen world and in the fitted one;
# gravity shares in it; what slides rocks and creeps (docs/benchmarks/physics.md: how often the bars hold the truth).
_RESTITUTION_GRAIN, _GRAVITY_GRAIN, _FRICTION_GRAIN = 0.04, 0.01, 0.03
_AS_LIKELY = (
    2.0  # of the cost: rolling explains as much as sliding almost without friction, and is what round things do
)
_LIMITS = {"gravity": (0.05, 40.0), "friction": (0.005, 3.0)}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How uncertain the prior is: one standard deviation. Zero: known."""

    position_m: float = 0.05
    velocity_m_s: float = 2.0
    friction: float = 1.0  # of its logarithm: 1.0 is a factor of e
    restitution: float = 0.35
    gravity: float = 0.0  # of its logarithm
    spin_rad_s: float = 0.0  # about each horizontal axis, of round bodies that start in flight


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The simulation nearest to what was seen. k bodies; deviations are one standard deviation."""

    bodies: tuple[Body, ...]
    gravity_m_s2: float
    gravity_std_m_s2: float
    friction_std: tuple[float, ...]
    restitution_std: tuple[float, ...]
    velocity_std_m_s: Float[np.ndarray, "k 3"]
    position_std_m: Float[np.ndarray, "k 3"]
    rms: float  # root mean square distance from what was seen, in its own unit (m, or picture heights)
    motion: Motion  # of the seen frames


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen: f frames of k bodies, d coordinates (3: metres; 2: picture), NaN where unseen."""

    track: Float[np.ndarray, "f k d"]
    fps: float
    sigma: float  # standard error of one coordinate
    observe: Callable[[Float[np.ndarray, "f k 3"]], Float[np.ndarray, "f k d"]]  # metres to what is seen


def fit(bodies: Sequence[Body], seen: Seen, *, gravity_m_s2: float, spread: Spread, hypotheses: bool = True) -> Fit:
    """The maximum a posteriori simulation.

    Args:
        bodies: priors: shapes and sizes are taken as they are, the rest as a first guess.
        gravity_m_s2: the prior's.
        hypotheses: try several bouncinesses, frictions and gravities before refining.

    Raises:
        InputError: tracks that do not fit the bodies, or nothing seen.
    """
    _check(bodies, seen)
    problem = _Problem(tuple(bodies), seen, gravity_m_s2, spread)
    starts = problem.starts() if hypotheses else [(problem.prior, False), (problem.prior, True)]
    costs = problem.costs(starts)
    results = []
    for n in np.argsort(costs, kind="stable")[:_REFINED]:
        x, problem.rolling = starts[n]
        made = _refine(problem, x)
        results.append((made.cost, problem.rolling, made.x, made.jac))
        if made.cost < _GOOD * np.isfinite(seen.track).sum():  # as good as the errors allow: no second opinion needed
            break
    cost, rolling, best, jacobian = _likeliest(problem, starts, costs, results)
    # The step in which a contact begins makes the slopes coarse: look around for a better restitution, and go on there.
    if spread.restitution:
        around = [problem.shifted(best, shift) for shift in np.linspace(-0.1, 0.1, 21)]
        nearest = around[int(np.argmin(problem.costs([(x, rolling) for x in around])))]
        problem.rolling = rolling
        made = _refine(problem, nearest)
        if made.cost < cost:
            best, jacobian = made.x, made.jac
    problem.rolling = rolling
    return problem.answer(best, jacobian)


def _likeliest(
    problem: "_Problem", starts, costs: np.ndarray, results: list
) -> tuple[float, bool, np.ndarray, np.ndarray]:
    """The best refined hypothesis; of a round thing on the floor rather one that rolls, if it explains as much: then
    friction does not show, and must not seem to."""
    best = min(results, key=lambda result: result[0])
    rolls = [n for n in np.argsort(costs, kind="stable") if starts[n][1]]
    if best[1] or not rolls or not any(problem.resting):
        return best
    x, problem.rolling = starts[rolls[0]]
    made = _refine(problem, x)
    return (made.cost, True, made.x, made.jac) if made.cost < best[0] + _AS_LIKELY else best


def _refine(problem: "_Problem", x: np.ndarray) -> OptimizeResult:
    return least_squares(
        problem.residuals,
        x,
        jac=problem.jacobian,  # pyright: ignore[reportArgumentType] (its stubs know only the names of methods)
        bounds=problem.bounds(),
        x_scale=problem.scale,
        max_nfev=20,
        ftol=1e-3,
        xtol=1e-4,
    )


class _Problem:
    """Unknowns as one vector, its residuals and their Jacobian. Known ones (spread 0) are left out of the vector."""

    def __init__(self, bodies: tuple[Body, ...], seen: Seen, gravity_m_s2: float, spread: Spread):
        self.unseen_gravity = 0.0
        if all(_rests(body, seen, k) or body.fixed for k, body in enumerate(bodies)):
            # On the floor only the product of friction and gravity shows: gravity stays what it is known to be.
            self.unseen_gravity, spread = spread.gravity, replace(spread, gravity=0.0)
        elif not _falls(bodies, seen):
            spread = replace(spread, gravity=min(spread.gravity, _BRIEF_FLIGHT))
        self.bodies, self.seen, self.spread = bodies, seen, spread
        self.rolling = False
        one = [spread.position_m] * 3 + [spread.velocity_m_s] * 3 + [spread.friction, spread.restitution]
        one += [spread.spin_rad_s] * 2
        deviations = [spread.gravity]
        values = [np.log(np.clip(gravity_m_s2, *_LIMITS["gravity"]))]
        guess = _first_velocities(bodies, seen, gravity_m_s2)
        resting = self.resting = [not body.fixed and _rests(body, seen, k) for k, body in enumerate(bodies)]
        self.spins, unseen = [], np.zeros((len(bodies), _PER_BODY))
        for k, body in enumerate(bodies):
            friction = np.log(np.clip(body.friction, *_LIMITS["friction"]))
            place = _first_place(body, seen, k)
            if resting[k]:  # a hair into the floor, a stiff contact would throw it: height and fall are known
                place[2], guess[k, 2] = rest_height_m(body), 0.0
            values += [*place, *guess[k], friction, body.restitution, *body.angular_velocity_rad_s[:2]]
            flies = body.shape in _ROUND and not resting[k] and body.pivot_m is None
            self.spins.append(flies and spread.spin_rad_s > 0)  # else it may roll, or its spin is as given
            known = ((2, 5) if resting[k] else ()) + (() if flies else (8, 9))
            if resting[k] and len(bodies) == 1 and _stays_down(body, seen, k):
                # Nothing bounced: what a stiff contact's trembling would tell is no restitution.
                known, unseen[k, _RESTITUTION] = (*known, _RESTITUTION), spread.restitution
            free = [0.0 if n in known else d for n, d in enumerate(one)]
            deviations += [0.0] * _PER_BODY if body.fixed else free
        self.all = np.array(values)
        deviation, self.unseen = np.array(deviations), unseen
        self.free = deviation > 0
        self.scale = deviation[self.free]
        self.prior = self.all[self.free]
        self.batch = Batch(bodies, num_frames=len(seen.track), fps=seen.fps)
        self.weight = np.isfinite(seen.track) / seen.sigma

    def starts(self) -> list[tuple[np.ndarray, bool]]:
        """Hypotheses to simulate before refining one."""
        frictions = [0.0] if self.spread.friction == 0 else [-0.6, 0.4]
        bounce_known = not self.free[1:].reshape(-1, _PER_BODY)[:, _RESTITUTION].any()
        bounces = [None] if bounce_known else np.arange(0.1, 0.95, 0.1)
        gravities = [0.0, *(np.log(g) - self.all[0] for g in _falls(self.bodies, self.seen))]
        gravities = gravities if self.spread.gravity else gravities[:1]
        rolls = any(b.shape in _ROUND and not spins for b, spins in zip(self.bodies, self.spins, strict=True))
        turns = (False, True) if rolls else (False,)
        made = []
        for gravity in gravities:
            for bounce in bounces:
                for friction in frictions:
                    whole = self.all.copy()
                    whole[0] += gravity
                    rows = whole[1:].reshape(-1, _PER_BODY)
                    rows[:, _FRICTION] += friction
                    if bounce is not None:
                        rows[:, _RESTITUTION] = bounce
                    rows[:, _VELOCITY] = _first_velocities(self.bodies, self.seen, float(np.exp(whole[0])))
                    for k in np.flatnonzero(self.resting):
                        slide = _slide(self.seen, int(k))
                        if slide is not None and friction == frictions[0]:
                            rows[k, 3:5] = slide[0]
                            rows[k, _FRICTION] = np.log(np.clip(slide[1] / np.exp(whole[0]), *_LIMITS["friction"]))
                    fixed = ~self.free[1:].reshape(-1, _PER_BODY)
                    rows[fixed] = self.all[1:].reshape(-1, _PER_BODY)[fixed]
                    low, high = self.bounds()
                    x = np.clip(whole[self.free], low + 1e-9, high - 1e-9)
                    made += [(x, rolling) for rolling in turns]
        return made

    def shifted(self, x: np.ndarray, shift: float) -> np.ndarray:
        """The unknowns with all restitutions moved by ``shift``, within bounds."""
        whole = self.whole(x)
        whole[1:].reshape(-1, _PER_BODY)[:, _RESTITUTION] += shift
        low, high = self.bounds()
        return np.clip(whole[self.free], low + 1e-9, high - 1e-9)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full_like(self.all, -np.inf), np.full_like(self.all, np.inf)
        low[0], high[0] = np.log(_LIMITS["gravity"])
        rows_low, rows_high = low[1:].reshape(-1, _PER_BODY), high[1:].reshape(-1, _PER_BODY)
        rows_low[:, _FRICTION], rows_high[:, _FRICTION] = np.log(_LIMITS["friction"])
        rows_low[:, _RESTITUTION], rows_high[:, _RESTITUTION] = 0.0, 0.98
        return low[self.free], high[self.free]

    def whole(self, x: np.ndarray) -> np.ndarray:
        full = self.all.copy()
        full[self.free] = x
        return full

    def scene(self, full: np.ndarray) -> tuple[tuple[Body, ...], float]:
        """The bodies and the gravity of a whole vector of unknowns."""
        made = []
        for body, row, spins in zip(self.bodies, full[1:].reshape(-1, _PER_BODY), self.spins, strict=True):
            if body.fixed:
                made.append(body)
                continue
            velocity = _vec(row[_VELOCITY])
            x, y, z = _vec(row[_PLACE])
            spin = (*(float(w) for w in row[_SPIN]), body.angular_velocity_rad_s[2])
            made.append(
                replace(
                    body,
                    position_m=(x, y, max(z, rest_height_m(body))),
                    velocity_m_s=velocity,
                    angular_velocity_rad_s=_rolling(body, velocity) if self.rolling and not spins else spin,
                    friction=float(np.exp(row[_FRICTION])),
                    restitution=float(np.clip(row[_RESTITUTION], 0, 0.98)),
                )
            )
        return _parted(made), float(np.exp(full[0]))

    def misfits(self, wholes: Sequence[np.ndarray]) -> list[Float[np.ndarray, "f k d"]]:
        """Simulated minus seen over its error; zero where unseen, huge where the simulation breaks down."""
        places = self.batch.run([self.scene(full) for full in wholes])
        seen = np.nan_to_num(self.seen.track)
        made = [np.nan_to_num(self.seen.observe(place), nan=1e3) for place in places]
        return [np.where(self.weight > 0, one - seen, 0.0) * self.weight for one in made]

    def residuals(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([self.misfits([self.whole(x)])[0].ravel(), (x - self.prior) / self.scale])

    def costs(self, starts: Sequence[tuple[np.ndarray, bool]]) -> np.ndarray:
        """The sum of squared residuals of each start."""
        total = np.zeros(len(starts))
        for rolling in (False, True):
            self.rolling = rolling
            those = [n for n, start in enumerate(starts) if start[1] == rolling]
            misfits = self.misfits([self.whole(starts[n][0]) for n in those]) if those else []
            for n, misfit in zip(those, misfits, strict=True):
                total[n] = np.sum(misfit**2) + np.sum(((starts[n][0] - self.prior) / self.scale) ** 2)
        return total

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """Central differences; unknowns of the same kind of all bodies are moved together (see the module's head)."""
        full = self.whole(x)
        count = len(self.bodies)
        free_rows = self.free[1:].reshape(count, _PER_BODY)
        kinds, variants = [], []
        for kind in range(-1, _PER_BODY):
            moved = np.zeros_like(full)
            if kind < 0:
                moved[0] = _GRAVITY_STEP * self.free[0]
            else:
                moved[1:].reshape(count, _PER_BODY)[:, kind] = _STEPS[kind] * free_rows[:, kind]
            if moved.any():
                kinds.append(kind)
                variants += [full + moved, full - moved]
        misfits = self.misfits(variants)
        columns = np.zeros((*self.seen.track.shape, len(full)))
        for n, kind in enumerate(kinds):
            slope = (misfits[2 * n] - misfits[2 * n + 1]) / 2
            if kind < 0:
                columns[..., 0] = slope / _GRAVITY_STEP
            else:
                for k in range(count):
                    columns[:, k, :, 1 + k * _PER_BODY + kind] = slope[:, k] / _STEPS[kind]
        jacobian = columns.reshape(-1, len(full))[:, self.free]
        return np.concatenate([jacobian, np.diag(1 / self.scale)])

    def answer(self, x: np.ndarray, jacobian: np.ndarray) -> Fit:
        full = self.whole(x)
        bodies, gravity = self.scene(full)
        motion = simulate(bodies, num_frames=len(self.seen.track), fps=self.seen.fps, gravity_m_s2=gravity)
        deviation = np.zeros_like(full)
        if len(x):
            deviation[self.free] = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
        rows = np.maximum(deviation[1:].reshape(-1, _PER_BODY), self.unseen)
        apart = np.where(self.weight > 0, self.seen.observe(motion.position_m) - np.nan_to_num(self.seen.track), np.nan)
        return Fit(
            bodies=bodies,
            gravity_m_s2=gravity,
            gravity_std_m_s2=float(gravity * max(_with_grain(deviation[0], _GRAVITY_GRAIN), self.unseen_gravity)),
            friction_std=tuple(
                b.friction * _with_grain(float(r[_FRICTION]), _FRICTION_GRAIN)
                for b, r in zip(bodies, rows, strict=True)
            ),
            restitution_std=tuple(_with_grain(float(std), _RESTITUTION_GRAIN) for std in rows[:, _RESTITUTION]),
            velocity_std_m_s=rows[:, _VELOCITY].copy(),
            position_std_m=rows[:, _PLACE].copy(),
            rms=float(np.sqrt(np.nanmean(np.sum(apart**2, axis=-1)))),
            motion=motion,
        )


def _parted(bodies: list[Body]) -> tuple[Body, ...]:
    """Solid from the start: what was put into each other is moved apart over the floor, until it touches."""
    made = list(bodies)
    for n, one in enumerate(made):
        for m, other in enumerate(made[:n]):
            gap = np.subtract(one.position_m, other.position_m)
            reach = 0.98 * (min(one.half_size_m) + min(other.half_size_m))
            if np.linalg.norm(gap) >= reach or (one.fixed and other.fixed):
                continue
            across = gap[:2] if np.any(gap[:2]) else np.array([1.0, 0.0])
            missing = np.sqrt(reach**2 - gap[2] ** 2) * across / np.linalg.norm(across) - gap[:2]
            share = 1.0 if other.fixed else 0.0 if one.fixed else 0.5
            made[n] = one = replace(one, position_m=_vec(np.add(one.position_m, [*(share * missing), 0.0])))
            made[m] = replace(other, position_m=_vec(np.subtract(other.position_m, [*((1 - share) * missing), 0.0])))
    return tuple(made)


def _with_grain(deviation: float, grain: float) -> float:
    """Both errors together; what is known exactly stays so."""
    return float(np.hypot(deviation, grain)) if deviation else 0.0


def _check(bodies: Sequence[Body], seen: Seen) -> None:
    if seen.track.ndim != 3 or seen.track.shape[1] != len(bodies):
        raise InputError(
            "tracks need the shape (frames, bodies, coordinates)",
            where=f"{seen.track.shape} for {len(bodies)} bodies",
        )
    if len(seen.track) < 2 or not np.isfinite(seen.track).any():
        raise InputError("at least two frames must be seen", where=f"{len(seen.track)} frames", fix="Give more frames")
    if not (seen.sigma > 0 and seen.fps > 0):
        raise ConfigError("sigma and fps are above zero", where=f"sigma={seen.sigma}, fps={seen.fps}")


def rest_height_m(body: Body) -> float:
    """Height of the middle of a body that stands on the floor as its quaternion turns it."""
    w, x, y, z = body.quaternion
    up = np.abs([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])  # of its axes, along the world's z
    a, b, c = body.half_size_m
    lean = float(np.sqrt(max(0.0, 1 - up[2] ** 2)))
    if body.shape == "ball":
        return a
    if body.shape == "cube":
        return float(up @ [a, b, c])
    if body.shape == "capsule":
        return float(a + max(c - a, 0.0) * up[2])
    return float(c * up[2] + a * lean)  # cylinder; a cone that stands or lies


def _rests(body: Body, seen: Seen, k: int) -> bool:
    """Whether it is seen to start on the floor and to stay there at first."""
    if body.pivot_m is not None or seen.track.shape[2] != 3:
        return body.pivot_m is None and body.position_m[2] <= rest_height_m(body) + 1e-3
    above = np.abs(seen.track[: max(3, round(_AT_FIRST_S * seen.fps)), k, 2] - rest_height_m(body))
    lies = np.isfinite(above[0]) and above[0] < max(4 * seen.sigma, 0.01)
    return bool(lies and np.all(above[np.isfinite(above)] < _tremble_m(body, seen)))


def _tremble_m(body: Body, seen: Seen) -> float:
    """How far the middle of what slides may seem off its resting height: errors, and what is tall rocks on its edge."""
    return max(4 * seen.sigma, 0.01, 0.08 * body.half_size_m[2] if body.shape != "ball" else 0.0)


def _stays_down(body: Body, seen: Seen, k: int) -> bool:
    """Whether no seen frame shows it above the floor; only tracks in metres can tell."""
    if seen.track.shape[2] != 3:
        return False
    above = seen.track[:, k, 2] - rest_height_m(body)
    return bool(np.nanmax(np.abs(above)) < _tremble_m(body, seen))


def _first_place(body: Body, seen: Seen, k: int) -> np.ndarray:
    """Where it is first: as seen in metres, else as the prior has it."""
    first = seen.track[0, k]
    return first.copy() if seen.track.shape[2] == 3 and np.isfinite(first).all() else np.array(body.position_m)


def _first_velocities(bodies: tuple[Body, ...], seen: Seen, gravity_m_s2: float) -> Float[np.ndarray, "k 3"]:
    """A first guess: straight lines (with the fall of this gravity) through the frames before the first contact."""
    guess = np.array([body.velocity_m_s for body in bodies], dtype=np.float64).reshape(-1, 3)
    if seen.track.shape[2] != 3:
        return guess
    for k, body in enumerate(bodies):
        if body.release_s > 0 or body.fixed or not np.isfinite(seen.track[:2, k]).all():
            continue
        count = max(2, _flying(body, seen, k))
        time_s = np.arange(count) / seen.fps
        rows = seen.track[:count, k].copy()
        airborne = body.pivot_m is None and rows[0, 2] > rest_height_m(body) + _CLEAR_M
        rows[:, 2] += gravity_m_s2 * time_s**2 / 2 * airborne
        seen_rows = np.isfinite(rows).all(axis=1)
        guess[k] = np.polyfit(time_s[seen_rows], rows[seen_rows], 1)[0]
        if not airborne:
            guess[k, 2] = max(guess[k, 2], 0.0)
    return guess


def _flying(body: Body, seen: Seen, k: int) -> int:
    """Number of first frames in which it flies: clear of the floor and, until then, never pushed up."""
    height = seen.track[:, k, 2]
    clear = height > rest_height_m(body) + _CLEAR_M
    count = int(np.argmin(clear)) if not clear.all() else len(clear)
    pushed = np.flatnonzero(np.diff(height[:count], n=2) > 5 * seen.sigma)
    if not len(pushed):
        return count
    count = int(pushed[0]) + 1
    # The push came before or after the frame in the middle of the three: before, unless the parabola goes on to it.
    if count >= 3:
        time_s = np.arange(count + 1) / seen.fps
        onward = np.polyval(np.polyfit(time_s[:-1], height[:count], 2), time_s[-1])
        count += int(abs(onward - height[count]) < 0.02 + 10 * seen.sigma)
    return count


def _falls(bodies: tuple[Body, ...], seen: Seen) -> list[float]:
    """Gravities (m/s^2) that parabolas through the first flights suggest."""
    if seen.track.shape[2] != 3 or len(seen.track) < 3:
        return [9.81, 3.71, 1.62]
    found = []
    for k, body in enumerate(bodies):
        count = _flying(body, seen, k)
        height, time_s = seen.track[:count, k, 2], np.arange(count) / seen.fps
        time_s, height = time_s[np.isfinite(height)], height[np.isfinite(height)]
        if len(height) >= 3 and body.pivot_m is None and not body.fixed:
            found.append(-2 * float(np.polyfit(time_s, height, 2)[0]))
    found = [gravity for gravity in found if _LIMITS["gravity"][0] < gravity < _LIMITS["gravity"][1]]
    return [float(np.median(found))] if found else []


def _slide(seen: Seen, k: int) -> tuple[np.ndarray, float] | None:
    """First velocity (2,) and deceleration (m/s^2) of the sliding stop that is nearest to a track on the floor; None
    for what hardly moves."""
    rows = seen.track[:, k, :2]
    rows = rows[: int(np.argmin(np.isfinite(rows).all(axis=1))) or len(rows)]
    gone = np.linalg.norm(rows - rows[0], axis=1)
    if gone.max() < 10 * seen.sigma + 0.02:
        return None
    time_s = np.arange(len(rows)) / seen.fps
    slope = np.geomspace(0.05, 15, 80)[:, None, None]
    speed = gone[1] * seen.fps * np.linspace(0.9, 3.0, 80)[:, None]
    moving = np.minimum(time_s, speed / slope)
    cost = np.sum((speed * moving - slope * moving**2 / 2 - gone) ** 2, axis=-1)
    a, v = np.unravel_index(int(np.argmin(cost)), cost.shape)
    way = (rows[int(np.argmax(gone))] - rows[0]) / gone.max()
    return way * float(speed[v, 0]), float(slope[a, 0, 0])


def _rolling(body: Body, velocity: tuple[float, float, float]) -> tuple[float, float, float]:
    """The spin of a round body that rolls without slipping on the floor; the body's own if it is not round."""
    if body.shape not in _ROUND:
        return body.angular_velocity_rad_s
    radius = body.half_size_m[0]
    return (-velocity[1] / radius, velocity[0] / radius, body.angular_velocity_rad_s[2])


def _vec(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.asarray(values, dtype=np.float64).tolist()
    return x, y, z
