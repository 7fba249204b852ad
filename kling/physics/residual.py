"""How far tracked positions are from the laws of motion: m/s^2, with error bars; a score, and a training term.

Nothing is simulated. Second differences of a track are accelerations, and each must be one that the laws allow:

    in the air            exactly -g
    on the floor          -g plus a push inside the friction cone: upwards, and sideways at most friction times that
    no engine             the energy of motion and height never grows, unless another body gives it
    solid                 nothing under the floor

The distance to what is allowed is the residual. Frames in which bodies touch each other are left out (there the
forces between them may be anything): `masked` tells how many. Bodies that hang or are held are the caller's to mask.
Rotation is not looked at, so a top that climbs by its spin would count as an engine.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kling.errors import InputError

_TOUCH = 1.08  # of the sum of radii: bodies nearer than this may be pushing each other
_FLOOR_SLACK_M = 0.02


@dataclass(frozen=True, kw_only=True)
class Residual:
    """f - 2 inner frames of k bodies. NaN where bodies touch or were not seen."""

    acceleration_m_s2: Float[np.ndarray, "n k"]  # distance of each acceleration from the nearest lawful one
    noise_m_s2: float  # standard error of one of them, from the tracks' own error
    mean_m_s2: float  # over what counts, with the tracks' own error taken out
    mean_error_m_s2: float  # standard error of that mean (over bodies and frames)
    lawful: float  # share of (frame, body) within three errors of the laws, 0..1: the score
    masked: int  # (frame, body) pairs that were left out


def residual(
    position_m: Float[np.ndarray, "f k 3"], *, fps: float, rest_height_m: Float[np.ndarray, " k"],
    radius_m: Float[np.ndarray, " k"], gravity_m_s2: float = 9.81, sigma_m: float = 0.002, max_friction: float = 1.2,
    held: Bool[np.ndarray, "f k"] | None = None,
) -> Residual:  # fmt: skip
    """Score tracks in metres.

    Args:
        rest_height_m: height of each body's middle when it lies on the floor (the lowest it may be).
        radius_m: bounding spheres, to know who may touch whom.
        sigma_m: standard error of a tracked coordinate.
        max_friction: friction of the roughest pair expected.
        held: true where a body hangs, is held, or stands on another: not judged.

    Raises:
        InputError: fewer than three frames, or arrays that do not fit together.
    """
    position_m = np.asarray(position_m, dtype=np.float64)
    if position_m.ndim != 3 or len(position_m) < 3 or position_m.shape[1:] != (len(rest_height_m), 3):
        raise InputError("a residual needs three frames of every body", where=f"positions {position_m.shape}")
    seen = torch.as_tensor(np.nan_to_num(position_m))
    rest, radius = torch.as_tensor(np.asarray(rest_height_m)), torch.as_tensor(np.asarray(radius_m))
    with torch.no_grad():
        terms = _distances(seen[None], fps, rest, gravity_m_s2, max_friction, slack_m=_FLOOR_SLACK_M + 3 * sigma_m)[0]
        judged = ~_touching(seen[None], radius)[0]
    made, counts = terms.numpy(), judged.numpy()
    unseen = np.asarray(~np.isfinite(position_m).all(axis=-1))
    if held is not None:
        unseen = unseen | np.asarray(held)
    counts &= ~(unseen[:-2] | unseen[1:-1] | unseen[2:])
    noise = float(np.sqrt(6) * sigma_m * fps**2)
    kept = made[counts]
    # Errors only ever add to a distance: their share, in squares, is taken out of the mean square.
    mean = float(np.sqrt(max(np.mean(kept**2) - noise**2, 0.0))) if len(kept) else 0.0
    return Residual(
        acceleration_m_s2=np.where(counts, made, np.nan),
        noise_m_s2=noise,
        mean_m_s2=mean,
        mean_error_m_s2=float((np.std(kept) + noise) / np.sqrt(len(kept))) if len(kept) else float("inf"),
        lawful=float(np.mean(kept <= 3 * noise + 0.05 * abs(gravity_m_s2))) if len(kept) else 1.0,
        masked=int((~counts).sum()),
    )


def training_term(
    position_m: Float[Tensor, "b f k 3"], *, fps: float, rest_height_m: Float[Tensor, "#b k"],
    radius_m: Float[Tensor, "#b k"], gravity_m_s2: float = 9.81, max_friction: float = 1.2,
    weight: Float[Tensor, "b f k"] | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The same distances as a differentiable loss: the mean squared residual over g squared (1: everything floats).

    Args:
        weight: how visible each body is; None: all are.
    """
    terms = _distances(position_m, fps, rest_height_m, gravity_m_s2, max_friction, slack_m=_FLOOR_SLACK_M)
    judged = (~_touching(position_m, radius_m)).to(terms.dtype)
    if weight is not None:
        judged = judged * weight[:, 1:-1]
    scale = max(abs(gravity_m_s2), 1.0)
    return ((terms / scale) ** 2 * judged).sum() / judged.sum().clamp(min=1.0)


def _distances(
    place: Float[Tensor, "b f k 3"], fps: float, rest: Tensor, gravity: float, max_friction: float, slack_m: float
) -> Float[Tensor, "b n k"]:
    """Distance of each inner frame's acceleration from the lawful ones."""
    step = (place[:, 1:] - place[:, :-1]) * fps  # b f-1 k 3: velocity in each interval
    push = (step[:, 1:] - step[:, :-1]) * fps  # b n k 3
    push = push + push.new_tensor([0.0, 0.0, gravity])  # the acceleration that gravity does not explain
    height = place[..., 2] - rest[..., None, :] if rest.ndim > 1 else place[..., 2] - rest  # b f k
    # Between frames a body may have come down to the floor and up again: how far it was falling, or came up, by then.
    down, rise = step[:, :-1, :, 2].clamp(max=0).abs(), step[:, 1:, :, 2].clamp(min=0)
    fall = torch.maximum(down, rise) / fps + abs(gravity) / (2 * fps**2)
    low = torch.minimum(torch.minimum(height[:, :-2], height[:, 1:-1]), height[:, 2:])
    grounded = low < slack_m + fall * (push[..., 2] > 0)
    free = _norm(push)
    up, across = push[..., 2], _norm(push[..., :2])
    outside = (across - max_friction * up.clamp(min=0)).clamp(min=0)
    on_floor = _norm(torch.stack([outside, (-up).clamp(min=0)], dim=-1))
    laws = torch.where(grounded, on_floor, free)
    sunk = (-height[:, 1:-1] - slack_m).clamp(min=0) * fps**2
    return laws + _engine(step, place, gravity, fps) + sunk


def _engine(step: Tensor, place: Tensor, gravity: float, fps: float) -> Float[Tensor, "b n k"]:
    """Acceleration that a growth of energy would need: growth over the highest so far, over the way in an interval."""
    middle = (place[:, 1:, :, 2] + place[:, :-1, :, 2]) / 2
    energy = (step**2).sum(-1) / 2 + gravity * middle  # b f-1 k, J/kg; exact on parabolas up to a constant
    highest = torch.cummax(energy, dim=1).values[:, :-1]
    speed = torch.maximum(_norm(step[:, 1:]), _norm(step[:, :-1])).detach()
    # The first interval may hold a contact, in which the mean velocity hides energy: allow what a fall hides.
    hidden = gravity**2 / (8 * fps**2)
    return ((energy[:, 1:] - highest - hidden).clamp(min=0)) / (speed / fps).clamp(min=0.02)


def _touching(place: Float[Tensor, "b f k 3"], radius: Tensor) -> Bool[Tensor, "b n k"]:
    """Inner frames in which a body is near another, now or a frame before or after."""
    k = place.shape[2]
    apart = _norm(place[..., :, None, :] - place[..., None, :, :])  # b f k k
    reach = _TOUCH * (radius[..., :, None] + radius[..., None, :])
    near = apart < (reach[:, None] if reach.ndim == 3 else reach)
    near = near & ~torch.eye(k, dtype=torch.bool, device=place.device)
    near = near.any(dim=-1)
    return near[:, :-2] | near[:, 1:-1] | near[:, 2:]


def _norm(vector: Tensor) -> Tensor:
    """Length with a gradient at zero."""
    return ((vector**2).sum(-1) + 1e-12).sqrt()
