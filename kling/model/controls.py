"""Controls: what conditions the model beside text. Every one is a zero-initialised addition; absent costs nothing.

A painted object is an outer product of where (its maps) and what (its phrase), so that one network serves any number of
objects in any order; the plan for "decide before drawing" reaches the transformer through here.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kling.errors import ConfigError
from kling.model.config import DiTConfig

_CAMERA_CHANNELS, _FLOW_CHANNELS = 6, 2
FLOOR_NUMBERS = 6  # of each point: place on the tile (x, y), and its change from one point to the next, both ways
FLOOR_POINTS = 4 * 2 * 2  # in a latent cell: of the latent frame's 4 frames, in each quarter of the cell
TILE_M = 4.0  # the floor is said as waves that repeat after this much, and their overtones


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Optional tensors on the latent grid (f h w); None is absent. docs/architecture.md tells what each means."""

    camera: Float[Tensor, "b 6 f h w"] | None = None  # Pluecker rays (direction, moment), first camera's frame
    flow: Float[Tensor, "b 2 f h w"] | None = None  # camera's image motion, latent cells a latent frame
    floor: Float[Tensor, "b q f h w"] | None = None  # where on the floor each point of a cell is; needs phrases
    objects: Float[Tensor, "b k m f h w"] | None = None  # DiTConfig.object_maps a slot; all zero: an empty slot
    phrases: Float[Tensor, "b k e"] | None = None  # mean text state of each slot's own noun phrase; last: the place
    first_frame: Float[Tensor, "b c 1 h w"] | None = None  # clean latents to start from
    last_frame: Float[Tensor, "b c 1 h w"] | None = None  # and to end at
    fps: Float[Tensor, " b"] | None = None

    def __post_init__(self):
        if (self.objects is None) != (self.phrases is None):
            raise ConfigError(
                "painted objects need both maps and phrases",
                where="Controls.objects, Controls.phrases",
                fix="Give both or neither",
            )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Controls":
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        return Controls(**{name: t if t is None else t.to(device=device, dtype=dtype) for name, t in made.items()})

    def without_plan(self) -> "Controls":
        """What is left when nothing says what happens: the given frames and the rate."""
        return replace(self, camera=None, flow=None, floor=None, objects=None, phrases=None)


@dataclass(frozen=True, kw_only=True)
class ControlContext:
    """Controls as the transformer takes them; the same at every denoising step."""

    tokens: Tensor | None  # b f s c, added at several depths
    first_frame: Tensor | None  # b 1 s d, added to the first (last) frame's tokens
    last_frame: Tensor | None
    fps: Tensor | None  # b 1 d, added to the time embedding

    def crop(self, start: int, stop: int, num_frames: int) -> "ControlContext":
        """What belongs to frames [start, stop) of tokens; the first (last) frame only where it lies in them."""
        return ControlContext(
            tokens=None if self.tokens is None else self.tokens[:, start:stop],
            first_frame=self.first_frame if start == 0 else None,
            last_frame=self.last_frame if stop == num_frames else None,
            fps=self.fps,
        )


class ControlLayers(nn.Module):
    """All parameters of the controls. Everything that ends in the transformer starts at zero."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        c, d = config.control_width, config.width
        cells = config.out_channels * math.prod(config.patch)
        self.tokens = ControlTokens(config)
        sites = 1 + (config.num_layers - 1) // config.control_every  # before block 0 and every so many blocks
        self.block_in = nn.ModuleList(ZeroLinear(c, d, bias=False) for _ in range(sites))
        self.first_frame_in = ZeroLinear(cells, d)
        self.last_frame_in = ZeroLinear(cells, d)
        self.fps_in = nn.Sequential(nn.Linear(config.time_freq_dim, c), nn.SiLU(), ZeroLinear(c, d))

    def forward(self, controls: Controls) -> ControlContext:
        fps = None
        if controls.fps is not None:
            rates = waves(controls.fps, self.config.time_freq_dim).to(self.first_frame_in.weight.dtype)  # b freq
            fps = self.fps_in(rates)[:, None]  # b 1 d
        return ControlContext(
            tokens=self.tokens(controls),
            first_frame=self._frame(self.first_frame_in, controls.first_frame),
            last_frame=self._frame(self.last_frame_in, controls.last_frame),
            fps=fps,
        )

    def add(self, block: int, x: Tensor, context: ControlContext) -> Tensor:
        """What controls add to the tokens before a block. x: b f s d."""
        if block == 0 and context.first_frame is not None:
            x = torch.cat((x[:, :1] + context.first_frame, x[:, 1:]), dim=1)
        if block == 0 and context.last_frame is not None:
            x = torch.cat((x[:, :-1], x[:, -1:] + context.last_frame), dim=1)
        if context.tokens is not None and block % self.config.control_every == 0:
            x = x + self.block_in[block // self.config.control_every](context.tokens)
        return x

    def _frame(self, project: nn.Linear, frame: Tensor | None) -> Tensor | None:
        if frame is None:
            return None
        if self.config.patch[0] != 1:
            raise ConfigError("first and last frame need patches of one latent frame", where=f"{self.config.patch}")
        return project(patches(frame, self.config.patch))  # b 1 s d


class ControlTokens(nn.Module):
    """Controls to tokens of a small width, one for each token of the grid, computed once a sampling run.

    Nothing here has a bias, so all-zero maps give all-zero tokens: an empty slot, or a camera dropped in training, is
    the same as an absent one. The projections into the transformer (`ControlLayers`) are what starts at zero.
    """

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.patch = config.patch
        cells = config.patch[0] * config.patch[1] * config.patch[2]
        width = config.control_width
        self.camera = nn.Linear(_CAMERA_CHANNELS * cells, width, bias=False)
        self.flow = nn.Linear(_FLOW_CHANNELS * cells, width, bias=False)
        self.maps = nn.Linear(config.object_maps * cells, width, bias=False)
        self.floor = FloorLinear(config) if config.floor_waves else None
        self.phrase = nn.Linear(config.text_dim, width, bias=False)
        self.slot = nn.Linear(width, width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)

    def forward(self, controls: Controls) -> Float[Tensor, "b f s c"] | None:
        parts = []
        if controls.camera is not None:
            parts.append(self.camera(patches(controls.camera, self.patch)))  # b f s c
        if controls.flow is not None:
            parts.append(self.flow(patches(controls.flow, self.patch)))  # b f s c
        if controls.objects is not None and controls.phrases is not None:
            parts.append(self._objects(controls.objects, controls.phrases, controls.floor))  # b f s c
        if not parts:
            return None
        return self.mix(F.silu(sum(parts[1:], parts[0])))  # b f s c

    def _objects(self, maps: Tensor, phrases: Tensor, floor: Tensor | None) -> Tensor:
        """Each slot passes its own non-linear layer before slots are added, so objects that meet do not average.

        The floor belongs to the place, which has the last slot: what a point of it looks like is a matter of both.
        """
        total = None
        what = self.phrase(F.normalize(phrases, dim=-1) * phrases.shape[-1] ** 0.5)  # b k c
        num_slots = maps.shape[1]
        for k in range(num_slots):
            where = self.maps(patches(maps[:, k], self.patch))  # b f s c
            if k == num_slots - 1 and floor is not None and self.floor is not None:
                where = where + self.floor(floor)
            slot = self.slot(F.silu(where * what[:, k, None, None]))  # b f s c
            total = slot if total is None else total + slot
        assert total is not None
        return total


class FloorLinear(nn.Linear):
    """A linear layer on the waves of a floor, point by point: those of all points at once would be most of the memory
    that preparing a clip takes."""

    def __init__(self, config: DiTConfig):
        channels = floor_channels(config.floor_waves) * math.prod(config.patch)
        super().__init__(channels, config.control_width, bias=False)
        self.overtones, self.patch = config.floor_waves, config.patch

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, floor: Float[Tensor, "b q f h w"]
    ) -> Float[Tensor, "b pf s c"]:
        made = None
        weights = self.weight.chunk(FLOOR_POINTS, dim=1)
        for point, weight in zip(floor.split(FLOOR_NUMBERS, dim=1), weights, strict=True):
            waves = patches(floor_waves(point, self.overtones).to(weight.dtype), self.patch)
            made = F.linear(waves, weight) if made is None else made + F.linear(waves, weight)
        assert made is not None
        return made


def floor_waves(floor: Float[Tensor, "b q f h w"], overtones: int) -> Float[Tensor, "b c f h w"]:
    """Points of the floor to plane waves over its tile: any pattern of the floor is a weighted sum of them.

    A wave that a point's own extent holds more than once fades, as it does in a picture (the integrated positional
    encoding of mip-NeRF, arXiv:2103.13415, on a plane); beyond the horizon all of them have. In fp32, whatever the
    model's type: phases are fine.
    """
    points = rearrange(floor.float(), "b (p n) f h w -> b p n 1 f h w", n=FLOOR_NUMBERS)
    number = torch.tensor(wave_numbers(overtones), dtype=torch.float32, device=floor.device)
    number = (2 * math.pi / TILE_M) * number.view(-1, 2, 1, 1, 1)  # radians a metre
    x, y, x_right, y_right, x_down, y_down = points.unbind(dim=2)  # b p 1 f h w
    phase = x * number[:, 0] + y * number[:, 1]  # b p wave f h w
    right, down = x_right * number[:, 0] + y_right * number[:, 1], x_down * number[:, 0] + y_down * number[:, 1]
    fade = torch.exp(-(right.square() + down.square()) / 24)  # of a box one point wide: its variance is 1/12
    return rearrange([phase.cos() * fade, phase.sin() * fade], "part b p wave f h w -> b (p wave part) f h w")


def floor_channels(overtones: int) -> int:
    """Cosine and sine of every wave, at every point of a latent cell."""
    return FLOOR_POINTS * 2 * len(wave_numbers(overtones))


def wave_numbers(overtones: int) -> list[tuple[int, int]]:
    """Waves a tile in x and in y, of every wave that is not shorter than the tile's side over ``overtones``."""
    steps = range(-overtones, overtones + 1)
    # (-m, -n) is the same wave.
    return [(m, n) for m in steps for n in steps if (m, n) > (0, 0) and m * m + n * n <= overtones * overtones]


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero, so that what it adds to is at first as it was."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def patches(maps: Float[Tensor, "b c f h w"], patch: tuple[int, int, int]) -> Float[Tensor, "b pf s q"]:
    """Patches as tokens: frames of patches x (rows, columns) x (channels and cells of a patch)."""
    pf, ph, pw = patch
    return rearrange(maps, "b c (f pf) (h ph) (w pw) -> b f (h w) (c pf ph pw)", pf=pf, ph=ph, pw=pw)


def waves(x: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of x at dim/2 rates from 1 down to 1/10,000, in fp32 (the embedding of times and rates)."""
    rate = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=x.device, dtype=torch.float32) / (dim // 2))
    angle = x.float()[..., None] * rate
    return torch.cat((angle.cos(), angle.sin()), dim=-1)
