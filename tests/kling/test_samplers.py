"""Flow, times, samplers and guidance against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.diffusion.flow import flow_loss, interpolate, noise_from_velocity, velocity_target, x0_from_velocity
from kling.diffusion.guidance import Guidance, combine, guided, guided_in_one_batch
from kling.diffusion.samplers import SAMPLERS, State, get_sampler, num_evaluations, sample
from kling.diffusion.streaming import chunk_sizes, roll_out
from kling.diffusion.times import sampling_times, shift_for, shift_times, training_times
from kling.errors import ConfigError

MEAN, STD = 0.7, 0.4  # the toy data set: every latent is Normal(MEAN, STD)


def gaussian_velocity(x, t):
    """E[noise - x0 | x_t] for that data, exactly."""
    t = t.double().reshape(-1, *[1] * (x.ndim - 1))
    variance = (1 - t) ** 2 * STD**2 + t**2
    deviation = x - (1 - t) * MEAN
    return (t / variance) * deviation - (MEAN + (1 - t) * STD**2 / variance * deviation)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def error_of(sampler, num_steps, shift=1.0):
    start = noise(2, 1, 3, 4, 4)
    # The flow of a Gaussian is affine: the k-th standard deviation of the noise becomes the k-th of the data.
    exact = MEAN + STD * start
    return (
        (sample(gaussian_velocity, start, sampling_times(num_steps, shift=shift), sampler=sampler) - exact).abs().max()
    )


# dpmpp_2m's steps in log-SNR do not shrink at the two ends of time, so it comes near its order of 2 only slowly.
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    ("sampler", "low", "high"), [("euler", 0.9, 1.1), ("heun", 1.9, 2.1), ("ab2", 1.9, 2.4), ("dpmpp_2m", 1.6, 2.1)]
)
def test_converges_to_the_analytic_answer_with_its_order(sampler, low, high, shift):
    errors = [float(error_of(sampler, steps, shift)) for steps in (320, 640)]
    assert errors[-1] < (0.01 if sampler == "euler" else 5e-4)
    assert low < math.log2(errors[0] / errors[1]) < high


def test_second_order_beats_euler_at_equal_evaluations():
    assert error_of("dpmpp_2m", 20) < 0.3 * error_of("euler", 20)
    assert error_of("ab2", 20) < 0.1 * error_of("euler", 20)
    assert error_of("heun", 10) < 0.5 * error_of("euler", 20)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("stop", [0, 1, 2, 5, 11])
def test_resuming_a_saved_state_equals_the_undisturbed_run(sampler, stop, tmp_path):
    times = sampling_times(12, shift=3.0)
    start = noise(1, 2, 2, 3, 3).float()
    whole = list(SAMPLERS[sampler](gaussian_velocity_f32, State(x=start), times))
    saved = whole[stop]
    torch.save({"x": saved.x, "v": saved.v, "x0": saved.x0, "step": saved.step}, tmp_path / "state.pt")
    rest = list(SAMPLERS[sampler](gaussian_velocity_f32, State(**torch.load(tmp_path / "state.pt")), times))
    assert [state.step for state in whole] == list(range(1, 13))
    assert len(rest) == 11 - stop
    assert not rest or torch.equal(rest[-1].x, whole[-1].x)


def gaussian_velocity_f32(x, t):
    return gaussian_velocity(x.double(), t).float()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopping_asks_for_no_further_evaluation(sampler):
    calls = []

    def velocity(x, t):
        calls.append(float(t[0]))
        return gaussian_velocity(x, t)

    states = SAMPLERS[sampler](velocity, State(x=noise(1, 1, 1, 2, 2)), sampling_times(8))
    next(states)
    first = len(calls)
    assert first == num_evaluations(sampler, 2) - num_evaluations(sampler, 1)
    states.close()
    assert len(calls) == first
    calls.clear()
    list(SAMPLERS[sampler](velocity, State(x=noise(1, 1, 1, 2, 2)), sampling_times(8)))
    assert len(calls) == num_evaluations(sampler, 8)


def test_bad_sampling_requests_are_named():
    with pytest.raises(ConfigError, match="euler, heun, ab2, dpmpp_2m"):
        get_sampler("ddim")
    with pytest.raises(ConfigError, match="at least one step"):
        sampling_times(0)
    with pytest.raises(ConfigError, match="positive"):
        sampling_times(4, shift=0.0)
    with pytest.raises(ConfigError, match="must fall"):
        sample(gaussian_velocity, noise(1, 1, 1, 2, 2), sampling_times(4).flip(0))
    with pytest.raises(ConfigError, match="not of this run"):
        list(SAMPLERS["euler"](gaussian_velocity, State(x=noise(1, 1, 1, 2, 2), step=9), sampling_times(4)))


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**31))
def test_the_convention_is_its_own_inverse(t, seed):
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(2, 3, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    time = torch.full((2,), t, dtype=torch.float64)
    x, v = interpolate(x0, eps, time), velocity_target(x0, eps)
    torch.testing.assert_close(x0_from_velocity(x, v, time), x0)
    torch.testing.assert_close(noise_from_velocity(x, v, time), eps)
    per_frame = time[:, None].expand(2, 4)
    assert torch.equal(interpolate(x0, eps, per_frame), x)


def test_each_frame_may_have_its_own_time():
    x0, eps = noise(1, 2, 3, 2, 2), noise(1, 2, 3, 2, 2) + 1
    x = interpolate(x0, eps, torch.tensor([[0.0, 0.5, 1.0]]))
    assert torch.equal(x[:, :, 0], x0[:, :, 0])
    assert torch.equal(x[:, :, 2], eps[:, :, 2])


def test_a_weight_masks_frames_without_diluting_the_loss():
    x0, eps = torch.zeros(1, 1, 4, 2, 2), torch.ones(1, 1, 4, 2, 2)
    prediction = torch.zeros(1, 1, 4, 2, 2)
    prediction[:, :, 0] = 100  # masked away
    weight = torch.tensor([0.0, 1, 1, 1]).reshape(1, 1, 4, 1, 1)
    assert flow_loss(prediction, x0, eps, weight) == 1
    assert flow_loss(velocity_target(x0, eps), x0, eps) == 0


@settings(deadline=None)
@given(st.floats(0.1, 20))
def test_shift_keeps_the_ends_and_the_order(shift):
    t = shift_times(torch.linspace(0, 1, 50, dtype=torch.float64), shift)
    assert t[0] == 0 and abs(t[-1] - 1) < 1e-12
    assert (t.diff() > 0).all()


def test_shift_matches_its_sources():
    assert shift_times(torch.tensor([0.5]), 3.0) == pytest.approx(0.75)
    assert shift_for(4 * 1024, base_tokens=1024, base_shift=3.0) == pytest.approx(6.0)


def test_training_times_are_logit_normal():
    t = training_times((200_000,), mean=0.6, std=1.3, generator=torch.Generator().manual_seed(1))
    logit = torch.logit(t.double())
    assert logit.mean() == pytest.approx(0.6, abs=0.02)
    assert logit.std() == pytest.approx(1.3, abs=0.02)
    uniform = training_times((200_000, 2), std=math.inf, generator=torch.Generator().manual_seed(1))
    assert uniform.shape == (200_000, 2)
    assert uniform.var() == pytest.approx(1 / 12, abs=1e-3)


def test_guidance_of_a_gaussian_shifts_its_mean_as_computed_by_hand():
    """With conditional N(m, 1) and unconditional N(0, 1), velocity is affine: guidance s acts like the mean s m."""

    def about(mean):
        def velocity(x, t):
            t = t.double().reshape(-1, 1, 1, 1, 1)
            variance = (1 - t) ** 2 + t**2
            deviation = x - (1 - t) * mean
            return (t - (1 - t)) / variance * deviation - mean

        return velocity

    start = noise(1, 1, 2, 2, 2)
    velocity = guided(about(0.5), about(0.0), Guidance(scale=3.0))
    got = sample(velocity, start, sampling_times(400), sampler="heun")
    torch.testing.assert_close(got, start + 1.5, atol=1e-4, rtol=0)


def test_one_batch_equals_two_calls_and_the_interval_saves_evaluations():
    sizes = []

    def both(x, t):
        sizes.append(len(x))
        half = len(x) // 2
        return torch.cat([gaussian_velocity(x[:half], t[:half]), 0.5 * gaussian_velocity(x[half:], t[half:])])

    guidance = Guidance(scale=2.5, interval=(0.25, 0.85), rescale=0.5)
    two = guided(gaussian_velocity, lambda x, t: 0.5 * gaussian_velocity(x, t), guidance)
    one = guided_in_one_batch(gaussian_velocity, both, guidance)
    start, times = noise(2, 1, 2, 3, 3), sampling_times(10)
    torch.testing.assert_close(sample(one, start, times, sampler="euler"), sample(two, start, times, sampler="euler"))
    assert sizes == [4] * 6  # t = 0.8, 0.7 ... 0.3 of the ten


def test_rescale_restores_the_spread():
    conditional, unconditional = noise(2, 3, 4, 4, 4), noise(2, 3, 4, 4, 4).flip(0) * 2
    full = combine(conditional, unconditional, Guidance(scale=6.0, rescale=1.0))
    torch.testing.assert_close(full.std((1, 2, 3, 4)), conditional.std((1, 2, 3, 4)))
    assert torch.equal(
        combine(conditional, unconditional, Guidance(scale=6.0)), unconditional + 6.0 * (conditional - unconditional)
    )


@pytest.mark.parametrize("wrong", [{"interval": (0.8, 0.2)}, {"interval": (0.0, 1.5)}, {"rescale": 1.5}])
def test_impossible_guidance_is_refused(wrong):
    with pytest.raises(ConfigError):
        Guidance(**wrong)


def test_roll_out_makes_each_chunk_from_those_before_it():
    """A toy in which each frame's data is N(last clean frame + 1, 0): the chain must count up."""
    memory: dict[int, torch.Tensor] = {}

    def velocity(x, t, frame):
        last = memory[frame - 1] if frame else torch.zeros_like(x[:, :, :1])
        steps = torch.arange(1, x.shape[2] + 1, dtype=x.dtype).reshape(1, 1, -1, 1, 1)
        return (x - (last + steps)) / t.reshape(-1, 1, 1, 1, 1).to(x.dtype)

    def remember(chunk, frame):
        for index in range(chunk.shape[2]):
            memory[frame + index] = chunk[:, :, index : index + 1]

    sizes = chunk_sizes(11, 3)
    assert sizes == [2, 3, 3, 3]
    steps_asked = []

    def times(frame):
        steps_asked.append(frame)
        return sampling_times(4 if frame == 0 else 2, shift=3.0)

    chunks = roll_out((noise(1, 2, size, 2, 2) for size in sizes), velocity, remember, times)
    first = next(chunks)
    assert steps_asked == [0]  # lazy: the second chunk has not begun
    video = torch.cat([first, *chunks], dim=2)
    assert steps_asked == [0, 2, 5, 8]
    torch.testing.assert_close(video[0, 0, :, 0, 0], torch.arange(1.0, 12, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stop", [1, 3])
def test_roll_out_goes_on_after_what_is_remembered(stop):
    def velocity(x, t, frame):
        return (x - frame) / t.reshape(-1, 1, 1, 1, 1).to(x.dtype)

    whole = list(roll_out([noise(1, 1, 2, 2, 2)] * 5, velocity, lambda *_: None, lambda _: sampling_times(3)))
    rest = list(
        roll_out(
            [noise(1, 1, 2, 2, 2)] * (5 - stop),
            velocity,
            lambda *_: None,
            lambda _: sampling_times(3),
            start_frame=2 * stop,
        )
    )
    assert all(torch.equal(a, b) for a, b in zip(whole[stop:], rest, strict=True))


def test_empty_chunks_are_refused():
    with pytest.raises(ConfigError, match="at least one latent frame"):
        chunk_sizes(4, 0)
