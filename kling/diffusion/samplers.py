"""Samplers: from noise to data along the velocity. One signature for all of them:

    for state in SAMPLERS["dpmpp_2m"](velocity, State(x=noise), sampling_times(30, shift=5.0)):
        ...  # after every step: show it, save it, or stop asking for the next

A sampler is a generator, so to cancel is not to ask for the next state; and a `State` is all there is to know, so the
same call with a saved state goes on where it was, to the same result. Nothing is drawn at random after the first noise.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from kling.diffusion.flow import x0_from_velocity
from kling.errors import ConfigError

# (x_t, t of shape (b,)) -> velocity of the shape of x_t
Velocity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a sampler is: ``x`` at ``times[step]``. A new run starts with ``State(x=noise)``."""

    x: Tensor
    step: int = 0  # steps done
    v: Tensor | None = None  # the velocity the last step went along: the history of the multistep samplers
    x0: Tensor | None = None  # the clean data it pointed at: a preview, and history too


Sampler = Callable[[Velocity, State, Tensor], Iterator[State]]


def euler(velocity: Velocity, state: State, times: Float[Tensor, "s"]) -> Iterator[State]:
    """First order, one evaluation a step."""
    for step, t, t_next in _steps(state, times):
        v = _evaluate(velocity, state.x, t)
        state = State(x=state.x + (t_next - t) * v, step=step + 1, v=v, x0=_x0(state.x, v, t))
        yield state


def heun(velocity: Velocity, state: State, times: Float[Tensor, "s"]) -> Iterator[State]:
    """Second order, two evaluations a step (Karras et al., arXiv:2206.00364, algorithm 1). The step onto t = 0 is
    Euler's: networks are hardly ever trained there, and the clean prediction is flat in t near data."""
    for step, t, t_next in _steps(state, times):
        v = _evaluate(velocity, state.x, t)
        x = state.x + (t_next - t) * v
        if t_next > 0:
            mean_v = (v + _evaluate(velocity, x, t_next)) / 2
            x = state.x + (t_next - t) * mean_v
        state = State(x=x, step=step + 1, v=v, x0=_x0(state.x, v, t))
        yield state


def ab2(velocity: Velocity, state: State, times: Float[Tensor, "s"]) -> Iterator[State]:
    """Second order, one evaluation a step: Adams-Bashforth on the velocity, which changes little along a straight
    path. The most accurate here from about 16 steps; below 8 it overshoots where the times are far apart."""
    for step, t, t_next in _steps(state, times):
        v, ahead = _evaluate(velocity, state.x, t), 0.0
        if state.v is not None and step > 0:
            ahead = (v - state.v) * ((t_next - t) / (t - float(times[step - 1])) / 2)
        state = State(x=state.x + (t_next - t) * (v + ahead), step=step + 1, v=v, x0=_x0(state.x, v, t))
        yield state


def dpmpp_2m(velocity: Velocity, state: State, times: Float[Tensor, "s"]) -> Iterator[State]:
    """Second order, one evaluation a step: DPM-Solver++ 2M (Lu et al., arXiv:2211.01095, algorithm 2) with
    alpha = 1 - t and sigma = t. Steps from t = 1, onto t = 0 and without a history are of first order (Euler's), and
    log-SNR steps do not shrink at the two ends, so the order measured is 1.7 to 1.8; robust with few steps."""
    for step, t, t_next in _steps(state, times):
        v = _evaluate(velocity, state.x, t)
        x0 = _x0(state.x, v, t)
        ahead = x0
        if state.x0 is not None and step > 0 and t_next > 0 and times[step - 1] < 1:
            last = _half_log_snr(t) - _half_log_snr(float(times[step - 1]))
            this = _half_log_snr(t_next) - _half_log_snr(t)
            ahead = x0 + (x0 - state.x0) * (this / (2 * last))
        shrink = t_next / t
        state = State(x=shrink * state.x + (1 - shrink) * ahead, step=step + 1, v=v, x0=x0)
        yield state


SAMPLERS: dict[str, Sampler] = {"euler": euler, "heun": heun, "ab2": ab2, "dpmpp_2m": dpmpp_2m}


def num_evaluations(name: str, num_steps: int) -> int:
    """How often a sampler asks for the velocity (what a generation costs)."""
    get_sampler(name)
    return 2 * num_steps - 1 if name == "heun" else num_steps


def get_sampler(name: str) -> Sampler:
    """Raises ConfigError that lists the samplers when the name is none of them."""
    if name not in SAMPLERS:
        raise ConfigError("unknown sampler", where=repr(name), fix=f"Choose one of: {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def sample(velocity: Velocity, noise: Tensor, times: Float[Tensor, "s"], *, sampler: str = "dpmpp_2m") -> Tensor:
    """The whole run at once, for callers that neither show nor save the steps between."""
    *_, last = get_sampler(sampler)(velocity, State(x=noise), times)
    return last.x


def _steps(state: State, times: Tensor) -> Iterator[tuple[int, float, float]]:
    """(step, t, t of the next) from where the state is. Times are floats: no device is asked for them in the loop."""
    values = times.tolist()
    if len(values) < 2 or any(late >= early for early, late in pairwise(values)):
        raise ConfigError("sampling times must fall, from noise (1) to data (0)", where=f"times={values[:4]}...")
    if not 0 <= state.step < len(values):
        raise ConfigError(
            "the saved state is not of this run",
            where=f"step {state.step} of {len(values) - 1}",
            fix="Resume with the number of steps the run began with",
        )
    for step in range(state.step, len(values) - 1):
        yield step, values[step], values[step + 1]


def _evaluate(velocity: Velocity, x: Tensor, t: float) -> Tensor:
    return velocity(x, torch.full((len(x),), t, dtype=torch.float32, device=x.device))


def _x0(x: Tensor, v: Tensor, t: float) -> Tensor:
    return x0_from_velocity(x, v, torch.full((len(x),), t, dtype=x.dtype, device=x.device))


def _half_log_snr(t: float) -> float:
    return math.log((1 - t) / t)
