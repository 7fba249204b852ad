"""What a small network reads in single pictures: for every pixel, which colour and shape of thing it belongs to.

It was trained on rendered playground frames alone (`python -m kling.bench train-reader`), never on anything a generator
made, and sees nothing but pixels. `kling.bench.tracks` joins what it reads over time.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as fn

from kling.errors import InputError
from kling.networks import filled
from kling.prompt.graph import COLORS, SHAPES
from kling.shapes import Frames

WEIGHTS = Path(__file__).with_name("reader.safetensors")
SIZE_NAMES = ("small", "", "large")  # "": a size that nobody stated lies between the two
SIDE_PX = 64  # the network's own resolution: the shorter side of a picture is brought to it
_CHANNELS = 1 + len(COLORS) + 2  # at full resolution: background, colours, offset to the object's middle
_HALF = len(SHAPES) + len(SIZE_NAMES) + 1  # at half: shapes, sizes, log of depth
OFFSET_PX = 8.0  # unit of the offsets


@dataclass(frozen=True, kw_only=True)
class Reading:
    """f frames at the network's resolution (h, w: the shorter is SIDE_PX)."""

    color: np.ndarray  # f 9 h w, probabilities: background, then COLORS
    offset_px: np.ndarray  # f 2 h w: x, y from the pixel to the middle of its object
    shape: np.ndarray  # f 5 h w, log probabilities of SHAPES
    size: np.ndarray  # f 3 h w, log probabilities of SIZE_NAMES
    depth_m: np.ndarray  # f h w: how far away, as it looks
    pictures: Frames  # f h w 3: the pictures it was read in


class Reader(nn.Module):
    """A U-Net on 2x2 pixel blocks: 64x64 pictures are 32x32 inside, and colour and offsets come out at 64x64 again."""

    def __init__(self, width: int = 32):
        super().__init__()
        w1, w2, w3 = width, width * 3 // 2, width * 2
        self.stem = _Block(12, w1)
        self.enter = _Block(w1, w1)
        self.down2 = _Block(w1, w2, stride=2)
        self.enter2 = _Block(w2, w2)
        self.down3 = _Block(w2, w3, stride=2)
        self.enter3 = _Block(w3, w3)
        self.up2 = nn.Conv2d(w3, w2, 1)
        self.leave2 = _Block(w2, w2)
        self.up1 = nn.Conv2d(w2, w1, 1)
        self.leave1 = _Block(w1, w1)
        self.fine = nn.Conv2d(w1, _CHANNELS * 4, 1)
        self.coarse = nn.Conv2d(w1, _HALF, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """b 3 h w in [0, 1] (h, w multiples of 8) -> b 11 h w, b 9 h/2 w/2: logits, offsets and log depth."""
        x1 = self.enter(self.stem(fn.pixel_unshuffle(pictures * 2 - 1, 2)))  # b w1 h/2 w/2
        x2 = self.enter2(self.down2(x1))  # b w2 h/4 w/4
        x3 = self.enter3(self.down3(x2))  # b w3 h/8 w/8
        x3 = x3 + x3.mean(dim=(2, 3), keepdim=True)  # the whole scene: its floor, light and scale
        x2 = self.leave2(x2 + fn.interpolate(self.up2(x3), scale_factor=2))
        x1 = self.leave1(x1 + fn.interpolate(self.up1(x2), scale_factor=2))
        return fn.pixel_shuffle(self.fine(x1), 2), self.coarse(x1)


class _Block(nn.Module):
    """3x3 convolution, group norm, SiLU; residual where the sizes allow."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.norm = nn.GroupNorm(4, c_out)
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = fn.silu(self.norm(self.conv(x)))
        return x + y if self.adds else y


@cache
def packaged() -> Reader:
    """The reader with the weights that come with the library.

    Raises:
        CheckpointError: they are missing or of another network.
    """
    return load(WEIGHTS)


def load(path: Path) -> Reader:
    """A reader from a safetensors file.

    Raises:
        CheckpointError: no such file, or the weights of another network.
    """
    return filled(Reader(), path, what="the evaluator's weights", teach="kling.bench train-reader")


def resize(frames: Frames) -> Frames:
    """Bring the shorter side to SIDE_PX and the longer to a multiple of 8.

    Raises:
        InputError: no frames, or pictures of less than 8 pixels.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames) or min(frames.shape[1:3]) < 8:
        raise InputError("the clip has no pictures to read", where=f"frames of shape {tuple(frames.shape)}")
    height, width = frames.shape[1:3]
    scale = SIDE_PX / min(height, width)
    size = max(SIDE_PX, round(width * scale / 8) * 8), max(SIDE_PX, round(height * scale / 8) * 8)
    if size == (width, height):
        return frames
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, size, interpolation=method) for frame in frames])


@torch.no_grad()
def read(frames: Frames, reader: Reader | None = None) -> Reading:
    """Every pixel of every frame.

    Raises:
        InputError: no frames, or pictures of less than 8 pixels.
    """
    pictures = resize(frames)
    reader = reader or packaged()
    batch = rearrange(torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255, "f h w c -> f c h w")
    parts = [reader(chunk) for chunk in batch.split(32)]
    fine, coarse = (torch.cat([part[i] for part in parts]) for i in range(2))
    coarse = fn.interpolate(coarse, scale_factor=2, mode="bilinear")
    colors, shapes = 1 + len(COLORS), len(SHAPES)
    return Reading(
        color=fine[:, :colors].softmax(1).numpy(),
        offset_px=(fine[:, colors:] * OFFSET_PX).numpy(),
        shape=coarse[:, :shapes].log_softmax(1).numpy(),
        size=coarse[:, shapes:-1].log_softmax(1).numpy(),
        depth_m=coarse[:, -1].exp().numpy(),
        pictures=pictures,
    )
