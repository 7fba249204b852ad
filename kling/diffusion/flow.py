"""The method: rectified flow (Liu et al., arXiv:2209.03003; Lipman et al., arXiv:2210.02747), and its one convention.

    t in [0, 1]:  t = 0 is data, t = 1 is noise
    x_t      = (1 - t) x0 + t noise
    velocity = noise - x0 = d x_t / d t

Training regresses the velocity at random t; sampling follows it from t = 1 to t = 0. Every function takes ``t`` as
``(b,)``, or as ``(b, f)`` where each latent frame has a time of its own (chunk-causal training, clean first frame).
"""

from jaxtyping import Float
from torch import Tensor

Times = Float[Tensor, "b"] | Float[Tensor, "b f"]


def interpolate(x0: Tensor, noise: Tensor, t: Times) -> Tensor:
    """x_t on the straight line from data to noise; ``b c f h w`` like its inputs."""
    t = _along(t, x0)
    return (1 - t) * x0 + t * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """What the network learns; the same at every t of one line."""
    return noise - x0


def x0_from_velocity(x: Tensor, velocity: Tensor, t: Times) -> Tensor:
    """The clean data that x_t and its velocity point at."""
    return x - _along(t, x) * velocity


def noise_from_velocity(x: Tensor, velocity: Tensor, t: Times) -> Tensor:
    """The noise that x_t and its velocity come from."""
    return x + (1 - _along(t, x)) * velocity


def flow_loss(prediction: Tensor, x0: Tensor, noise: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of the predicted velocity, a scalar.

    Args:
        weight: broadcast against ``x0`` (``b 1 f 1 1`` masks or weights frames). The mean is over the weight given,
            so that masked frames do not dilute the loss.
    """
    error = (prediction - velocity_target(x0, noise)).square()
    if weight is None:
        return error.mean()
    weight = weight.expand_as(error)
    return (error * weight).sum() / weight.sum()


def _along(t: Tensor, x: Tensor) -> Tensor:
    """t with singleton axes so that it broadcasts over ``b c f h w`` (or ``b ...`` for one time a sample)."""
    if t.ndim == 2:
        return t[:, None, :, None, None].to(x.dtype)
    return t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
