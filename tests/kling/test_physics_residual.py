"""The residual knows lawful motion from unlawful, and is a loss that pulls towards the laws."""

import numpy as np
import pytest
import torch

from kling.errors import InputError
from kling.physics.residual import residual, training_term
from kling.physics.simulate import Body, simulate

FPS = 8
KNOWN = {"rest_height_m": np.array([0.2]), "radius_m": np.array([0.2])}


def move(shape="ball", place=(0, 0, 1.2), velocity=(0.5, 0, 0), restitution=0.7, fps=FPS):
    one = Body(
        name="a", shape=shape, half_size_m=(0.2, 0.2, 0.2), mass_kg=1, friction=0.4, restitution=restitution,
        position_m=place, velocity_m_s=velocity,
    )  # fmt: skip
    return simulate((one,), num_frames=2 * fps + 1, fps=fps).position_m


LAWFUL = {
    "drop": {}, "lively": {"velocity": (0.5, 0, 2.0), "restitution": 0.85},
    "still": {"place": (0, 0, 0.2), "velocity": (0, 0, 0)}, "roll": {"place": (0, 0, 0.2), "velocity": (1, 0, 0)},
    "slide": {"shape": "cube", "place": (0, 0, 0.2), "velocity": (2, 0, 0)},
}  # fmt: skip


@pytest.mark.parametrize("name", LAWFUL)
@pytest.mark.parametrize("fps", [8, 24])
def test_simulated_motion_is_lawful(name, fps):
    scored = residual(move(**LAWFUL[name], fps=fps), fps=fps, **KNOWN)
    assert scored.lawful >= 0.95 and scored.mean_m_s2 <= 2 * scored.mean_error_m_s2


def unlawful(kind: str) -> np.ndarray:
    time_s = np.arange(17) / FPS
    place = move()
    if kind == "hovers":
        place[..., 2] = 1.0
    elif kind == "falls upwards":
        place[:, 0, 2] = 1 + 4.905 * time_s**2
    elif kind == "bounces higher each time":
        place[:, 0, 2] = 0.2 + np.abs(np.sin(time_s * 3)) * (0.3 + time_s)
    elif kind == "starts by itself":
        place = np.zeros((17, 1, 3)) + 0.2
        place[:, 0, 0] = np.maximum(time_s - 1, 0) * 1.5
    elif kind == "sinks":
        place[:, 0, 2] = 0.2 - 0.3 * time_s
    elif kind == "jitters":
        place = place + np.random.default_rng(0).normal(0, 0.05, place.shape)
    elif kind == "turns in the air":
        place = np.full((17, 1, 3), 30.0)
        place[:, 0, 2] -= 4.905 * time_s**2
        place[:, 0, 0] = np.abs(time_s - 1)
    return place


KINDS = [
    "hovers",
    "falls upwards",
    "bounces higher each time",
    "starts by itself",
    "sinks",
    "jitters",
    "turns in the air",
]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_laws_are_seen(kind):
    scored = residual(unlawful(kind), fps=FPS, **KNOWN)
    assert scored.lawful < 0.95 and scored.mean_m_s2 > 2 * scored.mean_error_m_s2


def test_hovering_is_off_by_one_gravity():
    scored = residual(unlawful("hovers"), fps=FPS, **KNOWN)
    assert scored.mean_m_s2 == pytest.approx(9.81, rel=0.05)
    moon = residual(unlawful("hovers"), fps=FPS, gravity_m_s2=1.62, **KNOWN)
    assert moon.mean_m_s2 == pytest.approx(1.62, rel=0.05)


def test_tracking_errors_are_taken_out_and_widen_the_bars():
    clean = move()
    noisy = clean + np.random.default_rng(0).normal(0, 0.01, clean.shape)
    honest = residual(noisy, fps=FPS, sigma_m=0.01, **KNOWN)
    naive = residual(noisy, fps=FPS, sigma_m=0.0001, **KNOWN)
    assert honest.mean_m_s2 < naive.mean_m_s2 and honest.mean_error_m_s2 > naive.mean_error_m_s2
    assert honest.lawful >= 0.9


def test_bodies_that_touch_are_not_judged():
    hit = np.zeros((9, 2, 3)) + 0.2
    hit[:, 1, 0] = 1.0
    hit[:, 0, 0] = np.minimum(np.arange(9) * 0.15, 0.6)
    hit[5:, 1, 0] += np.arange(4) * 0.15
    known = {"rest_height_m": np.full(2, 0.2), "radius_m": np.full(2, 0.2)}
    scored = residual(hit, fps=FPS, **known)
    assert scored.masked > 0 and scored.lawful == 1.0
    apart = hit.copy()
    apart[:, 1, 1] += 5
    assert residual(apart, fps=FPS, **known).lawful < 1.0  # pushed by nothing


def test_held_and_unseen_frames_are_not_judged():
    place = unlawful("hovers")
    assert residual(place, fps=FPS, held=np.ones((17, 1), bool), **KNOWN).lawful == 1.0
    place[8] = np.nan
    assert residual(place, fps=FPS, **KNOWN).masked == 3


def test_shapes_are_checked():
    with pytest.raises(InputError, match="three frames"):
        residual(np.zeros((2, 1, 3)), fps=FPS, **KNOWN)


def test_the_loss_is_small_for_the_laws_and_pulls_towards_them():
    known = {"rest_height_m": torch.tensor([0.2]), "radius_m": torch.tensor([0.2])}
    lawful = torch.tensor(move(), dtype=torch.float32)[None]
    wrong = torch.tensor(unlawful("jitters"), dtype=torch.float32)[None].requires_grad_()
    before = training_term(wrong, fps=FPS, **known)
    assert training_term(lawful, fps=FPS, **known) < 1e-3 < before
    place = wrong
    optimizer = torch.optim.Adam([place], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = training_term(place, fps=FPS, **known)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * before and torch.isfinite(place).all()
    still = torch.zeros(1, 5, 1, 3, requires_grad=True)
    training_term(still, fps=FPS, **known).backward()
    assert torch.isfinite(still.grad).all()  # no NaN where lengths are zero


def test_invisible_bodies_do_not_count_in_the_loss():
    known = {"rest_height_m": torch.tensor([0.2]), "radius_m": torch.tensor([0.2])}
    wrong = torch.tensor(unlawful("hovers"), dtype=torch.float32)[None]
    assert training_term(wrong, fps=FPS, weight=torch.zeros(1, 17, 1), **known) == 0
