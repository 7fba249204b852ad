"""The transformer measured: speed against diffusers' Wan and a floor, memory against formulas, bytes between ranks.

The **floor** is what no transformer of these sizes can avoid: the same matrix products and the same attention, and
nothing else (no norm, modulation, rotation, GELU, residual). Text keys and values are in it for a training step, where
they are computed, and not for a sampling step, where they are kept.
"""

import dataclasses
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import tyro
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kling.bench.live_memory import LiveMemory
from kling.bench.page import replace_table
from kling.bench.race import Clock, race, ratio
from kling.model import flops
from kling.model.attention import Grid, Reach, softmax_attention
from kling.model.config import DiTConfig
from kling.model.dit import DiT
from kling.model.flops import Workload
from kling.model.parallel import Layout
from kling.model.wan import from_wan, wan_config
from kling.presets import get_preset


@dataclass(frozen=True, kw_only=True)
class Size:
    """One row: width x depth and the grid of tokens."""

    num_heads: int
    num_layers: int
    grid: tuple[int, int, int]
    window: int | None = None
    head_dim: int = 64
    text_tokens: int = 64

    @property
    def config(self) -> DiTConfig:
        width = self.num_heads * self.head_dim
        return DiTConfig(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            mlp_dim=4 * width,
            in_channels=16,
            out_channels=16,
            text_dim=128,
            window=self.window,
        )

    @property
    def work(self) -> Workload:
        f, h, w = self.grid
        return Workload(grid=Grid(frames=f, height=h, width=w), text_tokens=self.text_tokens)

    def __str__(self) -> str:
        return f"{self.config.width}x{self.num_layers} / {self.work.grid.num_tokens}"


SIZES = (
    Size(num_heads=4, num_layers=4, grid=(5, 4, 4)),
    Size(num_heads=6, num_layers=4, grid=(4, 16, 16)),
    Size(num_heads=8, num_layers=2, grid=(16, 16, 16)),
)
WINDOWED = Size(num_heads=4, num_layers=1, grid=(64, 16, 16), window=16)
_QUICK = Size(num_heads=2, num_layers=1, grid=(3, 2, 2), head_dim=16, text_tokens=4)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the transformer and write the tables into the page of benchmarks."""

    out: Path | None = None
    """Page whose tables are replaced (docs/benchmarks/model.md); without it they are printed."""
    only: tuple[Literal["speed", "window", "memory", "flops", "bytes"], ...] = (
        "speed",
        "window",
        "memory",
        "flops",
        "bytes",
    )
    pairs: int = 5
    """Rounds, each timing every competitor once."""
    threads: int = 1
    clock: Clock = "cpu"
    """cpu: robust on a busy machine, for one thread only. wall: for an idle machine."""
    compiled: bool = True
    """Also race torch.compile of both (slow to start)."""
    sizes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    """Rows of the speed table, from the smallest; one alone fits into a few minutes."""
    passes: tuple[Literal["step", "forward + backward"], ...] = ("step", "forward + backward")
    """What is raced in them."""
    quick: bool = False
    """One tiny size, to see that everything runs."""


def command(arguments: list[str]) -> int:
    """`python -m kling.bench model`; raises ConfigError when --out has no place for a table."""
    options = tyro.cli(Options, args=arguments, prog="python -m kling.bench model")
    torch.set_num_threads(options.threads)
    tables = {"speed": speed, "window": window, "memory": memory, "flops": operations, "bytes": traffic}
    for name in options.only:
        table = "\n".join(tables[name](options))
        print(f"## {name}\n\n{table}\n", flush=True)
        if options.out is not None:
            replace_table(options.out, "python -m kling.bench model", name, table)
    return 0


def speed(options: Options) -> list[str]:
    """Sampling step and forward + backward, times the floor, eager and compiled."""
    rows = [
        "| width x depth / tokens | | ours | diffusers | ours compiled | diffusers compiled |",
        "|---|---|---|---|---|---|",
    ]
    for size in (_QUICK,) if options.quick else [SIZES[i] for i in options.sizes]:
        for kind in options.passes:
            runners = _runners(size, training=kind != "step", compiled=options.compiled and not options.quick)
            seconds = race(runners, rounds=options.pairs, clock=options.clock)
            cells = [str(ratio(seconds, n, "floor")) if n in seconds else "-" for n in _COMPETITORS]
            rows.append(f"| {size} | {kind} | " + " | ".join(cells) + " |")
            print(rows[-1], file=sys.stderr, flush=True)  # the whole table takes minutes
            gc.collect()
    return rows


def window(options: Options) -> list[str]:
    """A long clip: our temporal window against full attention, ours and theirs."""
    size = _QUICK if options.quick else WINDOWED
    runners = _runners(size, training=False, compiled=False)
    whole = _runners(dataclasses.replace(size, window=None), training=False, compiled=False)
    runners = {"ours": runners["ours"], "ours, full attention": whole["ours"], "diffusers": runners["diffusers"]}
    seconds = race(runners, rounds=options.pairs, clock=options.clock)
    names = list(runners)[1:]
    arithmetic = flops.step_flops(dataclasses.replace(size, window=None).config, size.work) / flops.step_flops(
        size.config, size.work
    )
    return [
        f"| {size}, window {size.window} | times as long as ours |",
        "|---|---|",
        *(f"| {name} | {ratio(seconds, name, 'ours')} |" for name in names),
        f"| operations of full attention, by formula | {arithmetic:.2f} |",
    ]


def memory(options: Options) -> list[str]:
    """Formulas of flops.py against the measured peak of live tensors, fp32."""
    rows = ["| width x depth / tokens, window | | formula MiB | measured MiB | ratio |", "|---|---|---|---|---|"]
    sizes = (_QUICK,) if options.quick else (*SIZES, dataclasses.replace(SIZES[2], window=4))
    for size in sizes:
        dit, latents, time, text, _ = _inputs(size)
        with torch.no_grad():
            context = dit.prepare(text)
            dit(latents, time, context)
            with LiveMemory() as step:
                dit(latents, time, context)
        dit(latents, time, text).sum().backward()
        with LiveMemory() as training:
            dit(latents, time, text).square().mean().backward()
        for kind, formula, measured in (
            ("step", flops.step_activation_bytes(size.config, size.work, number_bytes=4), step.peak_bytes),
            ("training", flops.training_activation_bytes(size.config, size.work, number_bytes=4), training.peak_bytes),
        ):
            sizes_mib = f"{formula / 2**20:.1f} | {measured / 2**20:.1f} | {formula / measured:.3f}"
            rows.append(f"| {size}, {size.window or 'none'} | {kind} | {sizes_mib} |")
    return rows


def operations(options: Options) -> list[str]:
    """Formulas of flops.py against torch's counter; on the meta device, so nothing is computed, not even for 12b."""
    rows = ["| transformer / tokens, window | | formula GFLOP | counted GFLOP | ratio |", "|---|---|---|---|---|"]
    sizes = (_QUICK,) if options.quick else (*SIZES, dataclasses.replace(SIZES[2], window=4))
    cases = [(f"{size}, {size.window or 'none'}", size.config, size.work) for size in sizes]
    if not options.quick:
        work = Workload(grid=Grid(frames=31, height=22, width=40))
        cases.append((f"12b / {work.grid.num_tokens}, 16", get_preset("12b").dit, work))
    for name, config, work in cases:
        step, training = _counted(config, work)
        for kind, formula, counted in (
            ("step", flops.step_flops(config, work), step),
            ("training", flops.training_flops(config, work), training),
        ):
            rows.append(f"| {name} | {kind} | {formula / 1e9:,.2f} | {counted / 1e9:,.2f} | {formula / counted:.4f} |")
    return rows


def _counted(config: DiTConfig, work: Workload) -> tuple[int, int]:
    """Operations of a step and of forward + backward, as torch counts them."""
    _, ph, pw = config.patch
    grid = work.grid
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused kernel
        dit = DiT(config)
        latents = torch.empty(1, config.in_channels, grid.frames, grid.height * ph, grid.width * pw)
        time, text = torch.empty(1), torch.empty(1, work.text_tokens, config.text_dim)
        with torch.no_grad():
            context = dit.prepare(text)
            with FlopCounterMode(display=False) as step:
                dit(latents, time, context)
        with FlopCounterMode(display=False) as training:
            dit(latents, time, text).sum().backward()
    return step.get_total_flops(), training.get_total_flops()


def traffic(options: Options) -> list[str]:
    """MiB that the busiest rank sends in one layer, forward: 12b, 1280x704, bf16, window 16; 8 ranks three ways."""
    rows = ["| latent frames | 8 by heads | 2 by frames x 4 by heads | 8 by frames |", "|---|---|---|---|"]
    for frames in (31, 76, 151, 301):
        cells = []
        for frame_ranks, head_ranks in ((1, 8), (2, 4), (8, 1)):
            grid = Grid(frames=frames, height=22, width=40)
            layout = Layout(grid=grid, frame_ranks=frame_ranks, head_ranks=head_ranks)
            reach = Reach(grid=grid, window=16)
            sent = [
                layout.layer_bytes(r, reach, num_heads=40, head_dim=128, number_bytes=2) for r in range(frame_ranks)
            ]
            cells.append(f"{max(sent) / 2**20:,.0f}")
        rows.append(f"| {frames} | " + " | ".join(cells) + " |")
    return rows


_COMPETITORS = ("ours", "diffusers", "ours compiled", "diffusers compiled")


def _runners(size: Size, *, training: bool, compiled: bool) -> dict[str, Callable[[], object]]:
    """The floor and the competitors, same weights where they have any, as calls without arguments."""
    dit, latents, time, text, theirs = _inputs(size)
    floor = Floor(size.config)
    with torch.no_grad():
        context = dit.prepare(text)
    tokens = torch.randn(1, size.work.grid.num_tokens, size.config.in_channels * 4)
    calls: dict[str, Callable[[], Tensor]] = {
        "floor": lambda: floor(tokens, text if training else context.text),
        "ours": lambda: dit(latents, time, text if training else context),
        "diffusers": lambda: theirs(latents, 1000 * time, text, return_dict=False)[0],
    }
    if compiled:
        fast, fast_theirs = torch.compile(dit), torch.compile(theirs)
        calls["ours compiled"] = lambda: fast(latents, time, text if training else context)
        calls["diffusers compiled"] = lambda: fast_theirs(latents, 1000 * time, text, return_dict=False)[0]
    return {name: _training(call) if training else torch.no_grad()(call) for name, call in calls.items()}


def _training(call: Callable[[], Tensor]) -> Callable[[], object]:
    return lambda: call().square().mean().backward()


def _inputs(size: Size) -> tuple[DiT, Tensor, Tensor, Tensor, nn.Module]:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    theirs = WanTransformer3DModel(**wan_config(size.config))  # pyright: ignore[reportArgumentType]
    dit = DiT(size.config)
    dit.load_state_dict(dict(from_wan(theirs.state_dict(), size.config)), strict=False)
    f, h, w = size.grid
    latents = torch.randn(1, 16, f, 2 * h, 2 * w)
    return dit, latents, torch.rand(1), torch.randn(1, size.text_tokens, 128), theirs


class Floor(nn.Module):
    """The matrix products and attentions of `DiT`, and nothing else. Full attention."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        d, m = config.width, config.mlp_dim
        self.num_heads = config.num_heads
        self.patch_in, self.patch_out = nn.Linear(config.in_channels * 4, d), nn.Linear(d, config.out_channels * 4)
        self.text_in = nn.Sequential(nn.Linear(config.text_dim, d), nn.Linear(d, d))
        shapes = {
            "qkv": (d, 3 * d),
            "out": (d, d),
            "q": (d, d),
            "kv": (d, 2 * d),
            "cross": (d, d),
            "up": (d, m),
            "down": (m, d),
        }
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*shape) for name, shape in shapes.items()}) for _ in range(config.num_layers)
        )

    def forward(self, x: Tensor, text: Tensor | tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
        """x: patches, b l q; text: states b t e, or the keys and values of each block."""
        states = self.text_in(text) if isinstance(text, Tensor) else None  # b t d
        x = self.patch_in(x)  # b l d
        for i, layers in enumerate(self.blocks):
            block = cast(nn.ModuleDict, layers)
            q, k, v = (self._heads(part) for part in block["qkv"](x).chunk(3, -1))
            x = block["out"](softmax_attention(q, k, v).flatten(2))
            k, v = text[i] if states is None else (self._heads(part) for part in block["kv"](states).chunk(2, -1))
            x = block["cross"](softmax_attention(self._heads(block["q"](x)), k, v).flatten(2))
            x = block["down"](block["up"](x))
        return self.patch_out(x)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))
