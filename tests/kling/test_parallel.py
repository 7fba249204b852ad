"""One rank equals two and four, forward and backward; bytes sent equal the formula. Real processes, gloo."""

import dataclasses
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from kling.errors import ConfigError
from kling.model.attention import Grid, Reach
from kling.model.config import DiTConfig
from kling.model.controls import Controls
from kling.model.dit import DiT
from kling.model.parallel import Layout, Mesh, ParallelDiT, make_mesh, split

CONFIG = DiTConfig(
    num_layers=2,
    num_heads=3,  # neither 2 nor 4 divides it
    head_dim=8,
    mlp_dim=32,
    in_channels=4,
    out_channels=4,
    text_dim=6,
    time_freq_dim=16,
    window=3,
    control_width=8,
    control_every=1,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison. Sizes in tokens."""

    frames: int = 1  # ranks
    heads: int = 1
    grid: tuple[int, int, int] = (7, 3, 2)
    window: int | None = 3
    chunk: int | None = None
    controls: bool = False
    time_per_frame: bool = False
    batch: int = 1

    def __str__(self):
        parts = [
            f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self) if getattr(self, f.name) != f.default
        ]
        return ",".join(parts).replace(" ", "")


CASES = {
    2: [
        Case(frames=2),
        Case(heads=2),
        Case(frames=2, window=None, batch=2),
        Case(heads=2, window=None, batch=2),
        Case(frames=2, grid=(8, 2, 2), window=2, controls=True, time_per_frame=True),
        Case(heads=2, controls=True, chunk=3),
        Case(frames=2, grid=(1, 2, 2)),  # a rank without a frame
        Case(heads=2, grid=(2, 1, 3)),  # a rank without a row
    ],
    4: [
        Case(frames=4, window=7),  # the window spans two neighbours
        Case(frames=4, window=8, chunk=2, time_per_frame=True),
        Case(frames=4, grid=(9, 2, 2), window=1),  # nothing to exchange
        Case(heads=4),
        Case(frames=2, heads=2, controls=True, batch=2),
        Case(frames=2, heads=2, grid=(5, 3, 1), window=2, chunk=2, controls=True, time_per_frame=True),
        Case(frames=2, heads=2, window=None),
        Case(frames=4, grid=(3, 2, 2), window=2, controls=True),
        Case(frames=2),  # two videos at once
    ],
}


def build(case: Case) -> DiT:
    torch.manual_seed(0)
    dit = DiT(dataclasses.replace(CONFIG, window=case.window))
    with torch.no_grad():
        for parameter in dit.parameters():  # what starts at zero must matter here
            if not parameter.any():
                parameter.normal_(std=0.3)
    return dit


def inputs(case: Case, seed: int = 1):
    draw = torch.Generator().manual_seed(seed)
    b, (f, h, w) = case.batch, (case.grid[0], 2 * case.grid[1], 2 * case.grid[2])

    def randn(*shape):
        return torch.randn(*shape, generator=draw)

    controls = None
    if case.controls:
        controls = Controls(
            camera=randn(b, 6, f, h, w),
            flow=randn(b, 2, f, h, w),
            objects=randn(b, 2, 6, f, h, w),
            phrases=randn(b, 2, CONFIG.text_dim),
            first_frame=randn(b, 4, 1, h, w),
            last_frame=randn(b, 4, 1, h, w),
            fps=torch.full((b,), 24.0),
        )
    time = torch.rand(b, f, generator=draw) if case.time_per_frame else torch.rand(b, generator=draw)
    return randn(b, 4, f, h, w), time, randn(b, 5, CONFIG.text_dim), controls


def run(model, case: Case, seed: int = 1) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Velocity, and the gradient of a loss that weighs every latent differently."""
    model.zero_grad()
    latents, time, text, controls = inputs(case, seed)
    velocity = model(latents, time, text, controls=controls, chunk=case.chunk)
    (velocity * torch.linspace(-1, 1, velocity.numel()).reshape(velocity.shape)).sum().backward()
    return velocity.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def rank_main(rank: int, world: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    answers = {str(case): answer(case, world) for case in CASES[world]}
    answers["guidance"] = both_halves()
    answers["roll-out"] = roll_out(make_mesh(heads=world))
    torch.save(answers, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def answer(case: Case, world: int):
    mesh = make_mesh(frames=case.frames, heads=case.heads)
    model = ParallelDiT(build(case), mesh)
    clip_ranks = case.frames * case.heads
    seed = 1 + dist.get_rank() // clip_ranks  # a video for each group of ranks
    latents, time, text, controls = inputs(case, seed)
    with torch.no_grad():
        model(latents, time, text, controls=controls, chunk=case.chunk)
    forward = mesh.traffic.bytes_sent
    mesh.traffic.bytes_sent = 0
    velocity, gradients = run(model, case, seed)
    both = mesh.traffic.bytes_sent
    names = [name for name, p in model.named_parameters()]
    missing = [name for name in names if name not in gradients]
    for name in names:
        if name in gradients:
            dist.all_reduce(gradients[name])
            gradients[name] /= world
    return {
        "velocity": velocity,
        "gradients": {name.removeprefix("dit."): g for name, g in gradients.items()},
        "missing": [name.removeprefix("dit.") for name in missing],
        "forward_bytes": forward,
        "backward_bytes": both - forward,
        "frame_index": mesh.frames.index,
    }


def both_halves():
    mesh = make_mesh(guidance=2)
    mine = torch.full((1, 1, 1, 2, 2), float(mesh.guidance.index))
    return mesh.both_halves(mine).flatten().tolist()


@torch.no_grad()
def roll_out(mesh: Mesh) -> torch.Tensor:
    """Two chunks, the second looking back at the first through memory."""
    case = Case(grid=(4, 3, 2), chunk=2)
    model = ParallelDiT(build(case), mesh)
    latents, time, text, _ = inputs(case)
    memory = model.new_memory()
    out = []
    for start in (0, 2):
        for layer in memory:
            layer.remember = True
        out.append(model(latents[:, :, start : start + 2], time, text, origin=(start, 0, 0), chunk=2, memory=memory))
    return torch.cat(out, dim=2)


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    """Every rank's answers to every case of a world size."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(rank_main, args=(world, port, str(folder)), nprocs=world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.mark.slow
def test_all_ranks_equal_one(ranks):
    world = len(ranks)
    for case in CASES[world]:
        clip_ranks = case.frames * case.heads
        alone = [run(build(case), case, seed) for seed in range(1, 1 + world // clip_ranks)]
        names = alone[0][1]
        mean = {name: sum(gradients[name] for _, gradients in alone) / len(alone) for name in names}
        for rank, answers in enumerate(ranks):
            got = answers[str(case)]
            close(got["velocity"], alone[rank // clip_ranks][0], f"{case} velocity")
            assert got["gradients"].keys() == mean.keys(), f"{case}: {got['missing']}"
            for name in mean:
                close(got["gradients"][name], mean[name], f"{case} gradient of {name}")


def close(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    scale = float(expected.abs().max().clamp(min=1))
    assert float((got - expected).abs().max()) <= 1e-5 * scale, what


@pytest.mark.slow
def test_bytes_sent_equal_the_formula(ranks):
    for case in CASES[len(ranks)]:
        layout = Layout(
            grid=Grid(frames=case.grid[0], height=case.grid[1], width=case.grid[2]),
            frame_ranks=case.frames,
            head_ranks=case.heads,
        )
        for answers in ranks:
            got = answers[str(case)]
            reach = Reach(grid=layout.grid, window=case.window, chunk=case.chunk)
            layer = layout.layer_bytes(got["frame_index"], reach, num_heads=3, head_dim=8, batch=case.batch)
            assert got["forward_bytes"] == CONFIG.num_layers * layer, str(case)
        total = sum(a[str(case)]["forward_bytes"] for a in ranks)
        assert sum(a[str(case)]["backward_bytes"] for a in ranks) == total, str(case)
        assert total > 0 or case.window == 1 or case.grid[0] == 1


@pytest.mark.slow
def test_guidance_halves_and_roll_out_over_ranks(ranks):
    alone = roll_out(Mesh())
    for answers in ranks:
        assert answers["guidance"] == [0.0] * 4 + [1.0] * 4
        close(answers["roll-out"], alone, "roll-out")


@given(st.integers(0, 60), st.integers(1, 12))
def test_shares_cover_all_and_are_alike(size, ranks):
    parts = split(size, ranks)
    assert [i for part in parts for i in range(part.own, part.stop)] == list(range(size))
    assert len({part.stop - part.start for part in parts}) == 1
    assert all(0 <= part.start <= part.own <= part.stop for part in parts)
    assert max(p.stop - p.own for p in parts) - min(p.stop - p.own for p in parts) <= 1


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 6)),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_a_rank_asks_for_exactly_the_frames_its_own_ones_see(frames, ranks, window, chunk):
    grid = Grid(frames=frames, height=1, width=1)
    layout = Layout(grid=grid, frame_ranks=ranks, head_ranks=1)
    reach = Reach(grid=grid, window=window, chunk=chunk)
    sees = reach.sees()
    for rank, part in enumerate(layout.frames):
        low, high = layout.needs(rank, reach)
        seen = sees[part.own : part.stop].any(0).nonzero().flatten().tolist()
        assert list(range(low, high)) == seen
        arriving = [f for other in range(ranks) for f in range(*layout.sends(other, reach).get(rank, (0, 0)))]
        assert sorted(arriving + list(range(part.own, part.stop))) == seen


def test_the_halo_does_not_grow_with_the_video_and_wins_when_it_is_long():
    def bytes_of(frames, frame_ranks, head_ranks):
        """All ranks together."""
        layout = Layout(grid=Grid(frames=frames, height=4, width=4), frame_ranks=frame_ranks, head_ranks=head_ranks)
        reach = Reach(grid=layout.grid, window=16)
        return head_ranks * sum(layout.layer_bytes(r, reach, num_heads=8, head_dim=64) for r in range(frame_ranks))

    halo = [bytes_of(f, frame_ranks=4, head_ranks=1) for f in (24, 64, 128, 256)]
    heads = [bytes_of(f, frame_ranks=1, head_ranks=4) for f in (24, 64, 128, 256)]
    assert halo[1] == halo[2] == halo[3]
    assert heads[3] == 4 * heads[1]
    assert halo[0] > heads[0] and halo[1] < heads[1] / 2  # the frames of a rank must be longer than the halo


def test_impossible_meshes_are_refused():
    with pytest.raises(ConfigError, match="1 ranks cannot be arranged"):
        make_mesh(frames=2)
    with pytest.raises(ConfigError, match="guidance"):
        make_mesh(guidance=3)
    with pytest.raises(ConfigError, match="not split"):
        make_mesh().both_halves(torch.zeros(1, 1, 1, 1, 1))


def test_one_rank_needs_no_process_group():
    case = Case(controls=True)
    velocity, gradients = run(ParallelDiT(build(case), make_mesh()), case)
    expected, expected_gradients = run(build(case), case)
    assert torch.equal(velocity, expected)
    assert all(torch.equal(gradients[f"dit.{name}"], g) for name, g in expected_gradients.items())
