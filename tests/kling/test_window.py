"""The temporal window: exact against a dense mask, forward and backward, and linear in frames."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from kling.model.attention import Grid, Reach, attend, visible_spans
from kling.model.config import DiTConfig
from kling.model.dit import DiT

SMALL = DiTConfig(
    num_layers=2, num_heads=2, head_dim=12, mlp_dim=48, in_channels=3, out_channels=3, text_dim=10, window=3
)


def dense(q, k, v, reach, memory=None, /):
    """The definition, by a dense mask."""
    assert memory is None
    size = reach.grid.frame_tokens
    mask = reach.sees().repeat_interleave(size, 0).repeat_interleave(size, 1)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 12),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    window=st.none() | st.integers(1, 14),
    chunk=st.none() | st.integers(1, 5),
    origin=st.integers(0, 7),
    seed=st.integers(0, 1000),
)
def test_blocks_equal_the_dense_mask_forward_and_backward(frames, height, width, window, chunk, origin, seed):
    grid = Grid(frames=frames, height=height, width=width, origin=(origin, 0, 0))
    reach = Reach(grid=grid, window=window, chunk=chunk)
    torch.manual_seed(seed)
    q, k, v, weights = torch.randn(4, 2, grid.num_tokens, 3, 8).unbind(0)
    ours = [t.clone().requires_grad_() for t in (q, k, v)]
    theirs = [t.clone().requires_grad_() for t in (q, k, v)]
    got, wanted = attend(*ours, reach), dense(*theirs, reach)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    with torch.no_grad():  # as when sampling: neighbouring frames together
        torch.testing.assert_close(attend(q, k, v, reach), wanted, atol=1e-5, rtol=0)
    (got * weights).sum().backward()
    (wanted * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(
    frames=st.integers(1, 30), window=st.integers(1, 20), past=st.integers(0, 9), chunk=st.none() | st.integers(1, 5)
)
def test_spans_are_exactly_what_the_definition_says(frames, window, past, chunk):
    grid = Grid(frames=frames, height=1, width=1, origin=(past, 0, 0))
    reach = Reach(grid=grid, window=window, chunk=chunk, past=past)
    seen = torch.zeros_like(reach.sees())
    for first, last, low, high in visible_spans(reach):
        seen[first:last, low:high] = True
    assert torch.equal(seen, reach.sees())


@pytest.mark.parametrize("frames", [1, 2, 5, 9])
def test_the_model_with_a_window_equals_it_with_the_dense_mask(frames):
    torch.manual_seed(0)
    model = DiT(SMALL)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    latents, text = torch.randn(2, 3, frames, 4, 6), torch.randn(2, 5, 10)
    time = torch.rand(2)
    got = model(latents, time, text)
    wanted = model(latents, time, text, attend=dense)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    mine = torch.autograd.grad(got.square().mean(), list(model.blocks.parameters()), allow_unused=True)
    dense_ones = torch.autograd.grad(wanted.square().mean(), list(model.blocks.parameters()), allow_unused=True)
    for a, b in zip(mine, dense_ones, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a - b).abs().max() < 1e-5 * max(1.0, b.abs().max().item())


def test_a_window_that_covers_the_clip_is_full_attention():
    torch.manual_seed(0)
    full = DiT(replace(SMALL, window=None))
    for p in full.parameters():
        torch.nn.init.normal_(p, std=0.2)
    wide = DiT(replace(SMALL, window=9))  # 4 frames to each side
    wide.load_state_dict(full.state_dict())
    latents, text = torch.randn(1, 3, 5, 4, 4), torch.randn(1, 5, 10)
    assert torch.equal(full(latents, torch.rand(1).fill_(0.3), text), wide(latents, torch.tensor([0.3]), text))


def test_a_frame_further_away_than_the_window_has_no_influence_on_one_block():
    model = DiT(replace(SMALL, num_layers=1, window=3))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    latents, text = torch.randn(1, 3, 8, 4, 4), torch.randn(1, 5, 10)
    other = latents.clone()
    other[:, :, 0] += 1
    time = torch.tensor([0.5])
    change = (model(latents, time, text) - model(other, time, text)).abs().amax(dim=(0, 1, 3, 4))
    assert (change[:2] > 0).all()  # frame 1 sees frame 0
    assert (change[2:] == 0).all()


@pytest.mark.parametrize(("window", "before", "after"), [(1, 0, 0), (2, 1, 0), (3, 1, 1), (16, 8, 7)])
def test_a_window_counts_all_the_frames_that_a_token_sees(window, before, after):
    sees = Reach(grid=Grid(frames=40, height=1, width=1), window=window).sees()
    assert sees[20].nonzero().flatten().tolist() == list(range(20 - before, 20 + after + 1))
    assert sees[20].sum() == window


def attention_cost(frames: int, window: int | None, *, backward: bool) -> int:
    """FLOPs that torch counts in attention alone, forward or both ways."""
    q, k, v = torch.randn(3, 1, frames * 4, 2, 8).unbind(0)
    for t in (q, k, v):
        t.requires_grad_(backward)
    reach = Reach(grid=Grid(frames=frames, height=2, width=2), window=window)
    with FlopCounterMode(display=False) as counter:
        out = attend(q, k, v, reach)
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("backward", [False, True])
def test_cost_is_linear_in_frames_with_a_window_and_quadratic_without(backward):
    step = [attention_cost(f, 4, backward=backward) for f in (20, 40, 60)]
    assert step[2] - step[1] == step[1] - step[0]  # exactly linear beyond the edges
    full = [attention_cost(f, None, backward=backward) for f in (20, 40)]
    assert full[1] == 4 * full[0]


def test_memory_of_the_backward_pass_is_linear_in_frames():
    """Bytes allocated, summed: plain slices would allocate a full-length gradient for each of the frames."""
    from torch.profiler import ProfilerActivity, profile

    def allocated(frames: int) -> int:
        q, k, v = (torch.randn(1, frames * 16, 2, 16, requires_grad=True) for _ in range(3))
        reach = Reach(grid=Grid(frames=frames, height=4, width=4), window=2)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
            attend(q, k, v, reach).sum().backward()
        return sum(max(0, event.self_cpu_memory_usage) for event in prof.events() or [])

    assert allocated(64) < 2.3 * allocated(32)
