"""Chunk-causal roll-out: chunk by chunk with memory equals the whole clip under the mask; memory is bounded."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.model.attention import Grid
from kling.model.config import DiTConfig
from kling.model.controls import Controls
from kling.model.dit import DiT
from kling.model.rope import rope_table

CONFIG = DiTConfig(
    num_layers=3, num_heads=2, head_dim=12, mlp_dim=48, in_channels=3, out_channels=3, text_dim=10, control_every=2
)


def make(window: int | None, seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    model = DiT(replace(CONFIG, window=window)).requires_grad_(False)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def sizes(total: int, chunk: int, first: int | None) -> list[int]:
    cut = [first or chunk]
    while sum(cut) < total:
        cut.append(chunk)
    cut[-1] -= sum(cut) - total
    return [n for n in cut if n]


def roll(model: DiT, latents, time, context, cut: list[int], num_frames: int) -> torch.Tensor:
    """Each chunk is evaluated twice, as in sampling: once reading only, once to be remembered."""
    memory, at, parts = model.new_memory(), 0, []
    for size in cut:
        chunk = slice(at, at + size)
        for remember in (False, True):
            for layer in memory:
                layer.remember = remember
            out = model(
                latents[:, :, chunk],
                time[:, chunk],
                context.crop(at, at + size, num_frames),
                origin=(at, 0, 0),
                memory=memory,
            )
        parts.append(out)
        at += size
    return torch.cat(parts, dim=2)


@settings(max_examples=20, deadline=None)
@given(
    frames=st.integers(1, 11),
    chunk=st.integers(1, 4),
    first=st.none() | st.integers(1, 3),
    window=st.none() | st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_roll_out_equals_the_masked_whole(frames, chunk, first, window, seed):
    first = None if first is None else min(first, chunk)
    model = make(window, seed)
    latents, text, time = torch.randn(2, 3, frames, 4, 2), torch.randn(2, 5, 10), torch.rand(2, frames)
    controls = Controls(
        camera=torch.randn(2, 6, frames, 4, 2),
        first_frame=torch.randn(2, 3, 1, 4, 2),
        last_frame=torch.randn(2, 3, 1, 4, 2),
    )
    context = model.prepare(text, controls=controls)
    whole = model(latents, time, context, chunk=chunk, first_chunk=first)
    rolled = roll(model, latents, time, context, sizes(frames, chunk, first), frames)
    torch.testing.assert_close(rolled, whole, atol=1e-5, rtol=1e-5)


def test_later_chunks_do_not_reach_earlier_ones():
    model = make(None)
    latents, text, time = torch.randn(1, 3, 6, 4, 2), torch.randn(1, 5, 10), torch.rand(1)
    other = latents.clone()
    other[:, :, 3] += 1
    change = (model(latents, time, text, chunk=2) - model(other, time, text, chunk=2)).abs().amax(dim=(0, 1, 3, 4))
    assert (change[:2] == 0).all()
    assert (change[2:] > 0).all()  # frame 2 shares frame 3's chunk


@pytest.mark.parametrize("window", [1, 4, 7])
def test_memory_is_bounded_by_the_window(window):
    model = make(window)
    memory = model.new_memory()
    text = model.prepare(torch.randn(1, 5, 10))
    held = []
    for chunk in range(12):
        for layer in memory:
            layer.remember = True
        model(torch.randn(1, 3, 2, 4, 2), torch.rand(1), text, origin=(2 * chunk, 0, 0), memory=memory)
        storages = [t.untyped_storage().nbytes() for m in memory for t in (m.keys, m.values) if t is not None]
        held.append(sum(storages))
    bound = 2 * len(memory) * (window // 2) * 2 * CONFIG.width * 4  # K and V, layers, frames, tokens a frame, fp32
    assert max(held) <= bound
    assert held[-1] == bound


def test_positions_go_on_beyond_any_table():
    """Rotation depends on the distance alone, so a far chunk equals the same chunk at the start."""
    model = make(3)
    latents, text, time = torch.randn(1, 3, 4, 4, 2), torch.randn(1, 5, 10), torch.rand(1)
    near, far = (model(latents, time, text, origin=(at, 0, 0)) for at in (0, 250_000))
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)
    table = rope_table(Grid(frames=1, height=1, width=1, origin=(250_000, 0, 0)), 12, torch.device("cpu"))
    assert table[0, 0, 0, 0, 0].item() == pytest.approx(torch.tensor(250_000.0, dtype=torch.float64).cos().item())
