"""A small video-text embedder: clips and captions as unit vectors, near where the caption says what is seen.

Few moments of a clip are looked at. What a picture holds comes from the way down of the reader's network
(`kling.bench.reader`, not taught further here); what happens between moments, and what words mean, was taught by
contrast on playground clips and captions, English and Japanese (`python -m data train-embedder`; the loss of CLIP,
Radford et al. 2021, arXiv:2103.00020, with captions that are wrong in one word as in Yuksekgonul et al. 2023,
arXiv:2210.01936). It knows no other world. A SigLIP or CLIP takes its place as `kling.sight.foreign.ForeignEmbedder`.
"""

import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as fn

from kling.bench.reader import Reader, resize
from kling.networks import filled
from kling.shapes import Frames

WEIGHTS = Path(__file__).with_name("embedder.safetensors")
MOMENTS = 5  # frames that a clip is looked at in
WIDTH = 128  # of the common space
CELLS = 8  # the picture as a grid of 8x8
SEEN = 64 + 4 * 48  # numbers a cell that the reader's way down gives
_TOKENS = 4096  # hash buckets of words and signs
_LONGEST = 160  # tokens; what follows is not read


class VideoNet(nn.Module):
    """b MOMENTS SEEN CELLS CELLS -> what is in each moment and what happens: b WIDTH, and b MOMENTS WIDTH."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.enter = nn.Conv2d(SEEN, width, 1)
        self.still = nn.Conv2d(width, width, 3, padding=1)
        self.still_norm = nn.GroupNorm(4, width)
        self.join = nn.Conv2d(MOMENTS * width, width * 3 // 2, 1)
        self.moving = nn.Conv2d(width * 3 // 2, width * 3 // 2, 3, stride=2, padding=1)
        self.moving_again = nn.Conv2d(width * 3 // 2, width * 3 // 2, 3, padding=1)
        self.moving_norm = nn.GroupNorm(4, width * 3 // 2)
        self.frame = nn.Linear(2 * width, WIDTH)
        self.clip = nn.Sequential(nn.Linear(5 * width, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))

    def stills(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """n SEEN CELLS CELLS -> each picture as a grid, n width CELLS CELLS, and in short, n 2*width."""
        x = fn.silu(self.enter(seen))
        x = x + fn.silu(self.still_norm(self.still(x)))
        return x, _pooled(x)

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        x, short = self.stills(rearrange(seen, "b m c y x -> (b m) c y x"))
        short = rearrange(short, "(b m) c -> b m c", m=MOMENTS)
        y = fn.silu(self.join(rearrange(x, "(b m) c y x -> b (m c) y x", m=MOMENTS)))
        y = fn.silu(self.moving(y))
        y = y + fn.silu(self.moving_norm(self.moving_again(y)))
        return self.clip(torch.cat([short.mean(1), _pooled(y)], dim=-1)), self.frame(short)


class TextNet(nn.Module):
    """b l of token numbers (0: nothing) -> b WIDTH. Convolutions: it matters which noun a colour is before."""

    def __init__(self, width: int = 96):
        super().__init__()
        self.table = nn.Embedding(_TOKENS, 64)
        self.near = nn.Conv1d(64, width, 5, padding=2)
        self.far = nn.Conv1d(width, width, 5, padding=4, dilation=2)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(2 * width, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        there = (tokens > 0).unsqueeze(1)  # b 1 l
        x = fn.silu(self.near(rearrange(self.table(tokens), "b l d -> b d l") * there)) * there
        x = (x + fn.silu(self.far(x))) * there
        x = self.norm(rearrange(x, "b d l -> b l d"))
        there = rearrange(there, "b 1 l -> b l 1")
        mean = (x * there).sum(1) / there.sum(1).clamp_min(1)
        return self.out(torch.cat([mean, x.masked_fill(~there, -1e4).amax(1)], dim=-1))


class VideoTextNet(nn.Module):
    """Both sides; all vectors are of length 1."""

    def __init__(self):
        super().__init__()
        self.eye = Reader()
        self.video, self.text = VideoNet(), TextNet()
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Tensor:
        """n 3 h w in [0, 1] -> n SEEN CELLS CELLS: the reader's way down, two resolutions at once."""
        eye = self.eye
        x = eye.enter(eye.stem(fn.pixel_unshuffle(pictures * 2 - 1, 2)))
        middle = eye.enter2(eye.down2(x))  # n 48 h/4 w/4
        low = eye.enter3(eye.down3(middle))  # n 64 h/8 w/8
        both = torch.cat([low, fn.pixel_unshuffle(middle, 2)], dim=1)
        return fn.adaptive_avg_pool2d(both, CELLS) if both.shape[-2:] != (CELLS, CELLS) else both

    def see(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """b MOMENTS SEEN CELLS CELLS -> b WIDTH of the clips, b MOMENTS WIDTH of the moments."""
        clip, frames = self.video(seen)
        return fn.normalize(clip, dim=-1), fn.normalize(frames, dim=-1)

    def read(self, texts: Sequence[str]) -> Tensor:
        """n WIDTH."""
        return fn.normalize(self.text(tokens_of(texts)), dim=-1)


def _pooled(x: Tensor) -> Tensor:
    """n c y x -> n 2c: the mean counts, the largest finds."""
    return torch.cat([reduce(x, "n c y x -> n c", "mean"), reduce(x, "n c y x -> n c", "max")], dim=-1)


def tokens_of(texts: Sequence[str]) -> Tensor:
    """n l: hash numbers of words and, where no spaces part words, of single signs."""
    rows = []
    for text in texts:
        parts = re.findall(r"[a-z0-9']+|[^\x00-\x7f]", text.lower())[:_LONGEST]
        rows.append([1 + zlib.crc32(part.encode()) % (_TOKENS - 1) for part in parts] or [0])
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


class PlaygroundEmbedder:
    """`kling.quality.semantic.VideoTextEmbedder` of the playground."""

    name = "playground-1"
    max_frames: int | None = MOMENTS

    def __init__(self, net: VideoTextNet):
        self._net = net

    @torch.no_grad()
    def embed_frames(self, frames: Frames) -> np.ndarray:
        """f d float32, each of length 1: what is seen, without what it does."""
        video = self._net.video
        return fn.normalize(video.frame(video.stills(self._seen(frames))[1]), dim=-1).numpy()

    @torch.no_grad()
    def embed_clip(self, frames: Frames) -> np.ndarray:
        """d float32 of length 1: compare it with `embed_text`."""
        chosen = np.linspace(0, len(frames) - 1, MOMENTS).round().astype(int)
        return self._net.see(self._seen(frames[chosen])[None])[0][0].numpy()

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """n d float32, each of length 1."""
        return self._net.read(texts).numpy()

    def _seen(self, frames: Frames) -> Tensor:
        return self._net.look(pictures_of(frames))


def pictures_of(frames: Frames) -> Tensor:
    """f 3 h w in [0, 1] at the reader's resolution; InputError as `kling.bench.reader.resize` raises it."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(resize(frames))).float() / 255, "f h w c -> f c h w")


@cache
def packaged() -> PlaygroundEmbedder:
    """With the weights that come with the library; raises CheckpointError as `load` does."""
    return load(WEIGHTS)


def load(path: Path) -> PlaygroundEmbedder:
    """From a safetensors file.

    Raises:
        CheckpointError: no such file, or the weights of another network.
    """
    return PlaygroundEmbedder(filled(VideoTextNet(), path, what="the embedder's weights", teach="data train-embedder"))
