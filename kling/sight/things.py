"""What a tracked thing is and does: one small network over its crops and numbers (`kling.sight.crops`).

One network looks at the crop of each frame, a second one runs over time. It was taught on playground clips
alone (`python -m kling.sight train-things`) and knows nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from kling.bench.reader import SIZE_NAMES
from kling.networks import filled
from kling.prompt.graph import ACTIONS, SHAPES
from kling.sight.crops import CHANNELS, CROP_PX, NUMBERS, Views

WEIGHTS = Path(__file__).with_name("things.safetensors")
FPS = 8.0  # the rate it was taught at: other clips are thinned to about this
# What it says of each frame: centre of mass in the picture beside the blob's middle (2), velocity of it in the picture
# beside its colour's (2), velocity in the world (3), log depth (1), whether it touches the floor (1), how much of it is
# visible (1).
FRAME = {"middle": 2, "slide": 2, "velocity": 3, "depth": 1, "floor": 1, "visible": 1}
CLIP = {"shape": len(SHAPES), "size": len(SIZE_NAMES), "action": len(ACTIONS)}
# Units of what it says of each frame: pixels of a 64-pixel picture, those a frame, metres a second.
UNITS = {"middle": 1.0, "slide": 0.5, "velocity": 1.0, "depth": 1.0, "floor": 1.0, "visible": 1.0}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the network says of one thing over f frames."""

    shape: np.ndarray  # 5 probabilities of SHAPES
    size: np.ndarray  # 3, of SIZE_NAMES
    action: np.ndarray  # 10, of ACTIONS; each on its own: a thing may do two
    middle_px: np.ndarray  # f 2: to be added to the blob's middle, pixels of the reader's pictures
    slide_px: np.ndarray  # f 2: pixels a frame, camera and thing together
    velocity_m_s: np.ndarray  # f 3: in the world (x right, y away, z up, as the first frame sees it)
    depth_m: np.ndarray  # f
    floor: np.ndarray  # f: probability that it touches the floor
    visible: np.ndarray  # f: share of its own pixels that nothing hides


class CropNet(nn.Module):
    """n CHANNELS+1 CROP_PX CROP_PX in [0, 1] -> n width. The last channel is the brightness of the frame before."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.edges = nn.Conv2d(CHANNELS + 1, 24, 3, stride=2, padding=1)
        self.parts = nn.Conv2d(24, 48, 3, stride=2, padding=1)
        self.out = nn.Sequential(nn.Linear(48 * (CROP_PX // 4) ** 2, 128), nn.SiLU(), nn.Linear(128, width))

    def forward(self, crops: Tensor) -> Tensor:
        x = nn.functional.silu(self.edges(crops * 2 - 1))
        return self.out(nn.functional.silu(self.parts(x)).flatten(1))


class ThingNet(nn.Module):
    """Crops and numbers of things in each frame; frames that one was not seen in are left out of every mean.

    Things of one clip see each other's mean: where the others stand and how large they look tells how the camera looks
    at the floor, and so how far away each is; and what one is hit by is among them.
    """

    def __init__(self, width: int = 96, look: int = 64):
        super().__init__()
        self.look = look
        self.crops = CropNet(look)
        self.enter = nn.Linear(look + NUMBERS + 1, width)
        self.layers = nn.ModuleList(_Time(width, dilation) for dilation in (1, 2, 4))
        self.shared = nn.ModuleList(nn.Linear(width, width) for _ in self.layers)
        self.frame = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, sum(FRAME.values())))
        self.clip = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, sum(CLIP.values())))

    def looks(self, crops: Tensor, seen: Tensor) -> Tensor:
        """b f CHANNELS CROP_PX CROP_PX uint8, b f bool -> b f look; zero where it was not seen."""
        grey = crops[:, :, :1]
        before = torch.cat([grey[:, :1], grey[:, :-1]], dim=1)
        known = torch.cat([seen[:, :1], seen[:, :-1]], dim=1)[..., None, None, None]
        both = torch.cat([crops, torch.where(known, before, grey)], dim=2)  # nothing before: nothing turned
        found = torch.zeros(*seen.shape, self.look)
        found[seen] = self.crops(both[seen].float() / 255)
        return found

    def over_time(
        self, looks: Tensor, numbers: Tensor, seen: Tensor, clip: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """b f look, b f NUMBERS, b f, b (number of its clip, from 0) -> logits of each (b) and of each frame (b f)."""
        there = seen.float()[..., None]  # b f 1
        x = self.enter(torch.cat([looks, numbers, there], dim=-1)) * there
        for layer, shared in zip(self.layers, self.shared, strict=True):
            x = layer(x + shared(_mean_of_clip(x, there, clip)) * there, there)
        few = there.sum(1).clamp_min(1)
        mean = (x * there).sum(1) / few  # b width
        top = x.masked_fill(~seen[..., None], -1e4).amax(1)
        start = _at_first(x, seen)
        told = self.clip(torch.cat([mean, top, start], dim=-1)).split(list(CLIP.values()), dim=-1)
        frame = self.frame(x).split(list(FRAME.values()), dim=-1)
        return dict(zip(CLIP, told, strict=True)), dict(zip(FRAME, frame, strict=True))


def _mean_of_clip(x: Tensor, there: Tensor, clip: Tensor) -> Tensor:
    """b f w: in each frame the mean of all things of the same clip that are seen in it."""
    number = int(clip.max()) + 1
    total = x.new_zeros(number, *x.shape[1:]).index_add(0, clip, x * there)
    few = there.new_zeros(number, *there.shape[1:]).index_add(0, clip, there)
    return (total / few.clamp_min(1))[clip]


def _at_first(x: Tensor, seen: Tensor) -> Tensor:
    """b f w at the first frame in which the thing is seen."""
    first = seen.float().argmax(1)
    return x[torch.arange(len(x)), first]


class _Time(nn.Module):
    """Residual layer over five frames, ``dilation`` apart."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        y = rearrange(self.norm(x) * there, "b f w -> b w f")
        return x + self.out(nn.functional.silu(rearrange(self.conv(y), "b w f -> b f w"))) * there


@cache
def packaged() -> ThingNet:
    """The network with the weights that come with the library; raises CheckpointError as `load` does."""
    return load(WEIGHTS)


def load(path: Path) -> ThingNet:
    """A network from a safetensors file.

    Raises:
        CheckpointError: no such file, or the weights of another network.
    """
    return filled(ThingNet(), path, what="the weights that name things", teach="kling.sight train-things")


@torch.no_grad()
def look(things: Sequence[Views], net: ThingNet | None = None) -> list[Seen]:
    """What each thing of one clip is and does."""
    if not things:
        return []
    net = net or packaged()
    seen = torch.from_numpy(np.stack([thing.seen for thing in things]))
    crops = torch.from_numpy(np.stack([thing.crops for thing in things]))
    numbers = torch.from_numpy(np.stack([thing.numbers for thing in things]))
    one_clip = torch.zeros(len(things), dtype=torch.long)
    clip, frame = net.over_time(net.looks(crops, seen), numbers, seen, one_clip)
    told = {name: (value * UNITS[name]).numpy() for name, value in frame.items()}
    shape, size = clip["shape"].softmax(-1).numpy(), clip["size"].softmax(-1).numpy()
    action = clip["action"].sigmoid().numpy()
    floor, visible = (frame[name][..., 0].sigmoid().numpy() for name in ("floor", "visible"))
    return [
        Seen(
            shape=shape[i],
            size=size[i],
            action=action[i],
            middle_px=told["middle"][i],
            slide_px=things[i].drift_px + told["slide"][i],
            velocity_m_s=told["velocity"][i],
            depth_m=np.exp(told["depth"][i, :, 0]),
            floor=floor[i],
            visible=visible[i],
        )
        for i in range(len(things))
    ]
