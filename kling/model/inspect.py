"""`kling inspect PRESET`: parameters, tokens, operations and memory for any size, length and number of ranks.

Loads no weights and runs nothing: modules are made on the meta device, the rest is arithmetic (flops.py, parallel.py).
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from kling.errors import ConfigError
from kling.model import flops
from kling.model.attention import Grid, Reach
from kling.model.config import TextConfig
from kling.model.dit import DiT
from kling.model.flops import Workload
from kling.model.parallel import Layout
from kling.model.vae import VideoVAE
from kling.presets import Preset, get_preset

_BF16 = 2  # bytes a number


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Parameters, tokens, operations and memory of a preset. What is not given is the preset's own clip."""

    preset: Annotated[str, tyro.conf.Positional]
    width: int | None = None
    """Pixels."""
    height: int | None = None
    """Pixels."""
    frames: int | None = None
    """Number of frames; or give the duration."""
    duration: float | None = None
    """Seconds; the nearest number of frames that the VAE takes is used."""
    fps: int | None = None
    steps: int | None = None
    """Sampling steps."""
    frame_ranks: int = 1
    """Ranks that divide the frames of a clip (halo exchange)."""
    head_ranks: int = 1
    """Ranks that divide the heads of a clip (Ulysses)."""
    training_ranks: int = 8
    """Ranks that ZeRO divides the training state over."""
    zero_stage: int = 3
    json: bool = False
    """Machine-readable, all numbers in full."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The numbers, in units by name. Bytes are a rank's, in bf16; the VAE's and text encoder's run is not in them."""

    preset: str
    dit_parameters: int
    vae_parameters: int
    text_parameters: int
    width_px: int
    height_px: int
    num_frames: int
    duration_s: float
    latents: tuple[int, int, int, int]  # channels, frames, height, width
    tokens: int
    tokens_a_rank: int
    step_flops: int  # one evaluation of the whole clip
    full_attention_step_flops: int  # the same without the temporal window
    generation_flops: int  # all steps, both halves of guidance
    training_flops: int  # forward and backward of one clip
    sampling_bytes: int  # weights, context and activations; DiT only
    training_bytes: int  # weights, gradients, AdamW and activations with recomputation, one clip
    layer_bytes_sent: int  # one layer, forward, the rank that sends most


def command(arguments: list[str]) -> int:
    """Print the report of `kling inspect`.

    Raises:
        ConfigError: unknown preset, or a size that the VAE and the patch do not divide (with the nearest that do).
    """
    options = tyro.cli(Inspect, args=arguments, prog="kling inspect")
    report = inspect(options)
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        Console().print(_table(report, options))
    return 0


def inspect(options: Inspect) -> Report:
    """The numbers behind `kling inspect`; raises as `command` does."""
    preset = get_preset(options.preset)
    config, clip, vae = preset.dit, preset.clip, preset.vae
    ranks = (options.frame_ranks, options.head_ranks, options.training_ranks)
    if min(ranks) < 1:
        raise ConfigError("numbers of ranks are positive", where=f"{ranks}")
    width, height = options.width or clip.width_px, options.height or clip.height_px
    frames, fps = _num_frames(options, preset), options.fps or clip.fps
    _, ph, pw = config.patch
    latents = (vae.latent_frames(frames), _latents(height, vae.stride_px, ph), _latents(width, vae.stride_px, pw))
    grid = Grid(frames=latents[0] // config.patch[0], height=latents[1] // ph, width=latents[2] // pw)
    work = Workload(grid=grid, text_tokens=preset.text.max_tokens, controls=True)

    layout = Layout(grid=grid, frame_ranks=options.frame_ranks, head_ranks=options.head_ranks)
    held = Grid(frames=_held(layout.frames), height=_held(layout.rows), width=grid.width)
    share = Workload(grid=held, text_tokens=work.text_tokens, controls=True)
    reach = Reach(grid=grid, window=config.window)
    sent = [
        layout.layer_bytes(r, reach, num_heads=config.num_heads, head_dim=config.head_dim, number_bytes=_BF16)
        for r in range(options.frame_ranks)
    ]
    step = flops.step_flops(config, work)
    with torch.device("meta"):
        dit_parameters = sum(p.numel() for p in DiT(config).parameters())
        vae_parameters = sum(p.numel() for p in VideoVAE(vae).parameters())
    return Report(
        preset=preset.name,
        dit_parameters=dit_parameters,
        vae_parameters=vae_parameters,
        text_parameters=text_parameters(preset.text),
        width_px=width,
        height_px=height,
        num_frames=frames,
        duration_s=frames / fps,
        latents=(config.out_channels, *latents),
        tokens=grid.num_tokens,
        tokens_a_rank=held.num_tokens,
        step_flops=step,
        full_attention_step_flops=step + _attention_saved(preset, work),
        generation_flops=_evaluations(options, preset) * step + 2 * flops.prepare_flops(config, work),
        training_flops=flops.training_flops(config, work, recompute=True),
        sampling_bytes=flops.weight_bytes(config)
        + flops.context_bytes(config, share)
        + flops.step_activation_bytes(config, share),
        training_bytes=flops.training_state_bytes(config, zero_stage=options.zero_stage, ranks=options.training_ranks)
        + flops.training_activation_bytes(config, share, recompute=True),
        layer_bytes_sent=max(sent),
    )


def text_parameters(config: TextConfig) -> int:
    """A UMT5 encoder: gated MLP, relative positions (32 buckets) in every layer, no biases."""
    attention = 4 * config.width * config.num_heads * config.head_dim + 32 * config.num_heads
    layer = attention + 3 * config.width * config.mlp_dim + 2 * config.width
    return config.vocab_size * config.width + config.num_layers * layer + config.width


def _num_frames(options: Inspect, preset: Preset) -> int:
    if options.frames is not None or options.duration is None:
        return options.frames or preset.clip.num_frames
    stride = preset.vae.stride_frames
    return max(0, round((options.duration * (options.fps or preset.clip.fps) - 1) / stride)) * stride + 1


def _latents(pixels: int, stride: int, patch: int) -> int:
    unit = stride * patch
    if pixels < unit or pixels % unit:
        low = max(1, pixels // unit) * unit
        raise ConfigError(
            f"width and height must be multiples of {unit} pixels (VAE {stride} x patch {patch})",
            where=f"{pixels} px",
            fix=f"The nearest are {low} and {low + unit}",
        )
    return pixels // stride


def _held(parts) -> int:
    return parts[0].stop - parts[0].start


def _evaluations(options: Inspect, preset: Preset) -> int:
    return (options.steps or preset.num_steps) * (2 if preset.guidance != 1 else 1)


def _attention_saved(preset: Preset, work: Workload) -> int:
    pairs = work.grid.num_tokens**2 - flops.visible_pairs(preset.dit, work)
    return 4 * preset.dit.num_layers * preset.dit.width * pairs * work.batch


def _table(report: Report, options: Inspect) -> Table:
    ranks = options.frame_ranks * options.head_ranks
    table = Table(
        title=f"{report.preset}: {report.width_px}x{report.height_px}, {report.num_frames} frames",
        min_width=60,
        show_header=False,
    )
    table.add_column("")
    table.add_column("", justify="right")
    rows = {
        "transformer": f"{_si(report.dit_parameters)} parameters",
        "VAE": f"{_si(report.vae_parameters)} parameters",
        "text encoder": f"{_si(report.text_parameters)} parameters",
        "duration": f"{report.duration_s:.2f} s",
        "latents c f h w": " x ".join(map(str, report.latents)),
        "tokens": f"{report.tokens:,}",
        f"tokens a rank ({options.frame_ranks} frames x {options.head_ranks} heads)": f"{report.tokens_a_rank:,}",
        "one evaluation": f"{_si(report.step_flops)}FLOP",
        "  with full attention": f"{_si(report.full_attention_step_flops)}FLOP",
        "one generation": f"{_si(report.generation_flops)}FLOP",
        "one training clip (recomputing)": f"{_si(report.training_flops)}FLOP",
        "sampling memory a rank (transformer, bf16)": _gib(report.sampling_bytes),
        f"training memory a rank (ZeRO-{options.zero_stage}, {options.training_ranks} ranks)": _gib(
            report.training_bytes
        ),
        "sent by a rank, one layer, forward": f"{report.layer_bytes_sent / 2**20:,.1f} MiB" if ranks > 1 else "-",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _si(value: int) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} "


def _gib(value: int) -> str:
    return f"{value / 2**30:,.2f} GiB"
