"""Formulas against the built model: parameters, torch's own counter of operations, and the measured peak of memory."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kling.bench.live_memory import LiveMemory
from kling.errors import ConfigError
from kling.model import flops
from kling.model.attention import Grid
from kling.model.config import DiTConfig
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS, Controls
from kling.model.dit import DiT
from kling.model.flops import Workload
from kling.presets import PRESETS

SMALL = DiTConfig(
    num_layers=3,
    num_heads=3,
    head_dim=16,
    mlp_dim=160,
    in_channels=4,
    out_channels=4,
    text_dim=24,
    window=None,
    control_width=32,
    control_every=2,
    object_slots=2,
)
WORKLOADS = {
    "full": (SMALL, Workload(grid=Grid(frames=4, height=3, width=5), text_tokens=7)),
    "window": (
        dataclasses.replace(SMALL, window=2),
        Workload(grid=Grid(frames=7, height=4, width=4), text_tokens=40, batch=2),
    ),
    "chunks": (
        dataclasses.replace(SMALL, window=3),
        Workload(grid=Grid(frames=7, height=4, width=4), text_tokens=7, chunk=2, time_per_frame=True),
    ),
    "controls": (
        dataclasses.replace(SMALL, window=3),
        Workload(grid=Grid(frames=5, height=4, width=4), text_tokens=7, controls=True),
    ),
    "outlines and floor": (
        dataclasses.replace(SMALL, outline_cells=2, floor_waves=2),
        Workload(grid=Grid(frames=5, height=4, width=4), text_tokens=7, controls=True),
    ),
}


def built(config: DiTConfig, work: Workload):
    torch.manual_seed(0)
    b, f, h, w = work.batch, work.grid.frames, 2 * work.grid.height, 2 * work.grid.width
    controls = None
    if work.controls:
        k = config.object_slots
        controls = Controls(
            camera=torch.randn(b, 6, f, h, w),
            flow=torch.randn(b, 2, f, h, w),
            floor=torch.rand(b, FLOOR_POINTS * FLOOR_NUMBERS, f, h, w) if config.floor_waves else None,
            objects=torch.randn(b, k, config.object_maps, f, h, w),
            phrases=torch.randn(b, k, config.text_dim),
        )
    time = torch.rand(b, f) if work.time_per_frame else torch.rand(b)
    text = torch.randn(b, work.text_tokens, config.text_dim)
    return DiT(config), torch.randn(b, config.in_channels, f, h, w), time, text, controls


@pytest.mark.parametrize("name", WORKLOADS)
def test_operations_equal_the_counter(name):
    config, work = WORKLOADS[name]
    dit, latents, time, text, controls = built(config, work)
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused kernel
        with FlopCounterMode(display=False) as prepare:
            context = dit.prepare(text, controls=controls)
        with FlopCounterMode(display=False) as step, torch.no_grad():
            dit(latents, time, context, chunk=work.chunk)
        with FlopCounterMode(display=False) as both:
            dit(latents, time, text, controls=controls, chunk=work.chunk).sum().backward()
    assert flops.prepare_flops(config, work) == pytest.approx(prepare.get_total_flops(), rel=0.02)
    assert flops.step_flops(config, work) == pytest.approx(step.get_total_flops(), rel=0.02)
    assert flops.training_flops(config, work) == pytest.approx(both.get_total_flops(), rel=0.02)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(SMALL, image_dim=20, in_channels=9),
        dataclasses.replace(SMALL, image_dim=20, image_tokens=6, patch=(1, 1, 2), control_every=1),
        PRESETS["tiny"].dit,
        PRESETS["12b"].dit,
    ],
    ids=["small", "image", "two images", "tiny", "12b"],
)
def test_parameters_equal_the_built_model(config):
    with torch.device("meta"):
        assert flops.num_parameters(config) == sum(p.numel() for p in DiT(config).parameters())


@pytest.mark.parametrize(
    ("num_heads", "mlp_dim", "grid", "given"),
    [
        (4, 1024, (4, 8, 8), {}),
        (4, 1024, (8, 8, 8), {"window": 3}),
        (3, 256, (6, 8, 10), {"window": 2}),
        (2, 512, (9, 16, 16), {"window": 6}),
        (2, 512, (5, 8, 8), {"controls": True, "batch": 2}),
        (2, 512, (5, 4, 8), {"dtype": torch.bfloat16}),
    ],
    ids=["full", "window", "narrow MLP", "in runs of tokens", "controls", "bf16"],
)
def test_memory_is_within_ten_percent_of_the_measured_peak(num_heads, mlp_dim, grid, given):
    config = dataclasses.replace(
        SMALL, num_heads=num_heads, head_dim=64, mlp_dim=mlp_dim, window=given.get("window"), control_width=64
    )
    work = Workload(
        grid=Grid(frames=grid[0], height=grid[1], width=grid[2]),
        text_tokens=32,
        batch=given.get("batch", 1),
        controls=given.get("controls", False),
    )
    dtype = given.get("dtype", torch.float32)
    dit, latents, time, text, controls = built(config, work)
    dit, latents, text = dit.to(dtype), latents.to(dtype), text.to(dtype)
    with torch.no_grad(), LiveMemory() as prepare:
        context = dit.prepare(text, controls=controls)
        kept = prepare.live_bytes
    with torch.no_grad():
        dit(latents, time, context)
        with LiveMemory() as step:
            dit(latents, time, context)
    dit(latents, time, text, controls=controls).sum().backward()  # gradients exist from here on, as in training
    with LiveMemory() as training:
        dit(latents, time, text, controls=controls).square().mean().backward()
    size = dtype.itemsize
    assert flops.context_bytes(config, work, number_bytes=size) == pytest.approx(kept, rel=0.1)
    assert flops.step_activation_bytes(config, work, number_bytes=size) == pytest.approx(step.peak_bytes, rel=0.1)
    assert flops.training_activation_bytes(config, work, number_bytes=size) == pytest.approx(
        training.peak_bytes, rel=0.1
    )


def test_live_memory_counts_what_is_alive_and_no_more():
    x = torch.zeros(1000)
    with LiveMemory() as memory:
        y = x + 1  # 4000 bytes
        z = (y * 2)[:10]  # 4000 more, a view keeps them
        del y
        assert (memory.live_bytes, memory.peak_bytes) == (4000, 8000)
        del z
    assert memory.live_bytes == 0


def test_training_state_is_that_of_adamw_under_zero():
    parameters = flops.num_parameters(SMALL)
    assert flops.training_state_bytes(SMALL) == 16 * parameters
    assert flops.training_state_bytes(SMALL, mixed=False) == 16 * parameters
    assert flops.training_state_bytes(SMALL, zero_stage=1, ranks=4) == 7 * parameters
    assert flops.training_state_bytes(SMALL, zero_stage=2, ranks=4) == pytest.approx(5.5 * parameters, abs=1)
    assert flops.training_state_bytes(SMALL, zero_stage=3, ranks=4) == 4 * parameters
    with pytest.raises(ConfigError, match="0 to 3"):
        flops.training_state_bytes(SMALL, zero_stage=4)
    optimizer = torch.optim.AdamW(DiT(SMALL).parameters())
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    moments = sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.numel() > 1)
    assert flops.training_state_bytes(SMALL, mixed=False) == pytest.approx(moments + 8 * parameters, rel=0.01)


def test_a_window_makes_operations_linear_in_frames():
    config = dataclasses.replace(SMALL, window=4)

    def cost(frames):
        return flops.step_flops(config, Workload(grid=Grid(frames=frames, height=8, width=8)))

    assert cost(400) - cost(200) == 2 * (cost(300) - cost(200))
    assert flops.memory_bytes(config, Workload(grid=Grid(frames=9999, height=8, width=8))) == flops.memory_bytes(
        config, Workload(grid=Grid(frames=2, height=8, width=8))
    )


def test_recomputing_trades_operations_for_memory():
    config = dataclasses.replace(SMALL, num_layers=12)
    work = Workload(grid=Grid(frames=4, height=8, width=8), text_tokens=7)
    assert flops.training_flops(config, work, recompute=True) == pytest.approx(
        4 / 3 * flops.training_flops(config, work), rel=0.05
    )
    assert flops.training_activation_bytes(config, work, recompute=True) < 0.25 * flops.training_activation_bytes(
        config, work
    )


def test_preparing_a_clip_takes_no_more_memory_than_a_step_does():
    """Else what admission learns from small clips would not hold: the floor's waves took six times as much."""
    config = PRESETS["tiny"].dit
    torch.manual_seed(0)
    dit, size = DiT(config).requires_grad_(False), (9, 24, 24)
    controls = Controls(
        camera=torch.randn(1, 6, *size),
        flow=torch.randn(1, 2, *size),
        floor=torch.rand(1, FLOOR_POINTS * FLOOR_NUMBERS, *size),
        objects=torch.rand(1, config.object_slots, config.object_maps, *size),
        phrases=torch.randn(1, config.object_slots, config.text_dim),
    )
    with LiveMemory() as preparing:
        context = dit.prepare(torch.randn(1, 60, config.text_dim), controls=controls)
    with LiveMemory() as stepping:
        dit(torch.randn(1, config.in_channels, *size), torch.tensor([0.5]), context)
    assert preparing.peak_bytes <= stepping.peak_bytes
