"""The one seam of attention: who sees whom, and the single function that computes it on one device.

The transformer calls ``attend(q, k, v, reach, memory)`` for every self-attention and knows nothing else about it.
Whoever wants it computed otherwise (over several ranks: parallel.py) passes another `Attend` to ``DiT.forward``.
Queries and keys arrive normalised and rotated, so an implementation never needs positions, only the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor

from kling.errors import InternalError

Heads = Float[Tensor, "b l n d"]
Span = tuple[int, int, int, int]  # query frames [first, last) and the key frames [low, high) they see
_FULL_QUERIES = 768  # from so many on, torch's attention kernel for CPUs takes its largest, fastest blocks of queries


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The tokens of one call: frames x height x width, flattened in this order.

    ``origin`` is the absolute position of the first one: not zero for a later chunk of a roll-out, and for a rank that
    holds a part of the video.
    """

    frames: int
    height: int
    width: int
    origin: tuple[int, int, int] = (0, 0, 0)

    @property
    def frame_tokens(self) -> int:
        return self.height * self.width

    @property
    def num_tokens(self) -> int:
        return self.frames * self.frame_tokens


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which frames a token of frame i sees: every token of each frame j that passes both tests.

    ``window`` w: i - w // 2 <= j <= i + (w - 1) // 2, which is w frames in all, itself included (of 16: 8 before and 7
    after). None: no limit.
    ``chunk`` c: chunk(j) <= chunk(i), chunks of c absolute frames (the first has ``first_chunk``, if that is given).
    None: the future is seen too.

    ``past`` is the number of frames of the keys that lie before the grid's first (from a roll-out's memory).
    """

    grid: Grid
    window: int | None = None
    chunk: int | None = None
    first_chunk: int | None = None
    past: int = 0

    @property
    def whole(self) -> bool:
        """Whether every frame sees every other, by the window's size alone."""
        frames = self.past + self.grid.frames
        return self.chunk is None and (self.window is None or frames <= (self.window - 1) // 2 + 1)

    def in_window(self, frame: int) -> tuple[int, int]:
        """The frames [low, high) of a frame's window."""
        assert self.window is not None
        return frame - self.window // 2, frame + (self.window - 1) // 2 + 1

    def chunk_of(self, frame):
        """The chunk of an absolute frame (an int or a tensor of them)."""
        assert self.chunk is not None
        return (frame + (self.chunk - self.first_chunk if self.first_chunk else 0)) // self.chunk

    def chunk_end(self, frame: int) -> int:
        """The first absolute frame after this frame's chunk."""
        assert self.chunk is not None
        late = self.chunk - self.first_chunk if self.first_chunk else 0
        return (self.chunk_of(frame) + 1) * self.chunk - late

    def sees(self) -> Bool[Tensor, "i j"]:
        """The definition itself, frame by frame: queries of the grid x keys of the past and the grid."""
        first = self.grid.origin[0]
        i = torch.arange(first, first + self.grid.frames)[:, None]
        j = torch.arange(first - self.past, first + self.grid.frames)[None, :]
        allowed = torch.ones(i.shape[0], j.shape[1], dtype=torch.bool)
        if self.window is not None:
            allowed &= (j >= i - self.window // 2) & (j <= i + (self.window - 1) // 2)
        if self.chunk is not None:
            allowed &= self.chunk_of(j) <= self.chunk_of(i)
        return allowed


@runtime_checkable
class Attend(Protocol):
    """What stands at the seam. q, k, v hold the tokens of ``reach.grid``; the result has q's shape.

    ``memory`` (one layer's, chunk-causal roll-out only) adds earlier frames to the keys; see `Memory`.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, reach: Reach, memory: "Memory | None" = None, /) -> Tensor: ...


@dataclass(kw_only=True)
class Memory:
    """Keys and values of the frames before the current chunk, of one layer.

    While a chunk is denoised it is only read. Once the chunk is clean, one more evaluation with ``remember`` set adds
    its keys and values.
    """

    keep_frames: int | None  # how many frames are kept: those that a later frame can see; None: all
    remember: bool = False
    keys: Tensor | None = None  # b l n d
    values: Tensor | None = None

    def extend(self, k: Heads, v: Heads, frame_tokens: int) -> tuple[Tensor, Tensor, int]:
        """The remembered frames followed by these; and how many frames are remembered ones."""
        past = 0
        if self.keys is not None and self.values is not None:
            past = self.keys.shape[1] // frame_tokens
            k = torch.cat((self.keys, k), dim=1)
            v = torch.cat((self.values, v), dim=1)
        if self.remember:
            start = 0 if self.keep_frames is None else max(0, k.shape[1] - self.keep_frames * frame_tokens)
            # A copy: a slice would keep the whole storage alive and memory would grow.
            self.keys, self.values = k[:, start:].detach().clone(), v[:, start:].detach().clone()
        return k, v, past


def attend(q: Heads, k: Heads, v: Heads, reach: Reach, memory: Memory | None = None, /) -> Heads:
    """Self-attention of all tokens of the grid on this device, exact for every `Reach`."""
    if memory is not None:
        k, v, past = memory.extend(k, v, reach.grid.frame_tokens)
        reach = replace(reach, past=past)
    if reach.whole:
        return softmax_attention(q, k, v)
    return attend_spans(q, k, v, visible_spans(reach), reach.grid.frame_tokens)


def attend_spans(q: Heads, k: Tensor, v: Tensor, spans: Sequence[Span], size: int) -> Heads:
    """Attention block by block: spans as `visible_spans` gives them, ``size`` tokens a frame. k, v: b l_k n d."""
    fused = not torch.compiler.is_compiling() and torch.backends.cuda.flash_sdp_enabled()  # the flag is the CPU's too
    if fused and q.device.type == "cpu" and not torch.is_grad_enabled():
        return _attend_groups(q, k, v, spans, size)
    parts = []
    queries = q.split([(last - first) * size for first, last, _, _ in spans], dim=1)
    for query, (_, _, low, high) in zip(queries, spans, strict=True):
        seen_k, k = _Take.apply(k, low * size, high * size)
        seen_v, v = _Take.apply(v, low * size, high * size)
        parts.append(softmax_attention(query, seen_k, seen_v))
    return torch.cat(parts, dim=1)


def _attend_groups(q: Heads, k: Tensor, v: Tensor, spans: Sequence[Span], size: int) -> Heads:
    """`attend_spans` without gradients on a CPU, fast for small frames too. What neighbouring spans all see is computed
    for all of them at once, the rest span by span; the parts are joined by the logarithms of their softmax's sums
    (Dao et al., arXiv:2205.14135, section 3.1), which the public function does not return."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # b n l d
    parts = []
    for group in _groups(spans, size):
        low, high = max(span[2] for span in group), min(span[3] for span in group)
        begin, end = group[0][0] * size, group[-1][1] * size
        y, total = kernel(q[:, :, begin:end], k[:, :, low * size : high * size], v[:, :, low * size : high * size])
        for first, last, left, right in group:
            mine = slice(first * size - begin, last * size - begin)
            for start, stop in ((left, low), (high, right)):
                if start < stop:
                    keys = slice(start * size, stop * size)
                    other, other_total = kernel(q[:, :, first * size : last * size], k[:, :, keys], v[:, :, keys])
                    share = torch.sigmoid(other_total - total[:, :, mine])  # b n l
                    y[:, :, mine].lerp_(other, share[..., None])
                    torch.logaddexp(total[:, :, mine], other_total, out=total[:, :, mine])
        parts.append(y.transpose(1, 2))  # b l n d
    return torch.cat(parts, dim=1)


def _groups(spans: Sequence[Span], size: int) -> list[list[Span]]:
    """Neighbouring spans together until they fill the kernel's blocks, as long as there are frames that all see."""
    groups: list[list[Span]] = []
    for span in spans:
        group = groups[-1] if groups else []
        few = bool(group) and (group[-1][1] - group[0][0]) * size < _FULL_QUERIES
        if few and max(span[2], *(s[2] for s in group)) < min(span[3], *(s[3] for s in group)):
            group.append(span)
        else:
            groups.append([span])
    return groups


class _Take(torch.autograd.Function):
    """A slice of the tokens, and the tokens again for the next slice.

    Plain slicing would allocate a gradient of the full length for every slice: quadratic in the number of frames. Here
    the slices' gradients are added into one tensor that is handed from take to take.
    """

    @staticmethod
    def forward(ctx, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        ctx.start, ctx.stop, ctx.shape = start, stop, x.shape
        ctx.set_materialize_grads(False)
        return x[:, start:stop], x.view_as(x)

    @staticmethod
    def backward(ctx, *gradients: Tensor | None):
        part, rest = gradients
        if part is not None:
            rest = part.new_zeros(ctx.shape) if rest is None else rest
            rest[:, ctx.start : ctx.stop] += part
        return rest, None, None


def visible_spans(reach: Reach) -> list[Span]:
    """Runs of query frames [first, last) that see the same run of key frames [low, high).

    Queries are counted within the grid, keys from the oldest remembered frame. What a frame sees is always one run, so
    no mask is ever needed: the work is the sum of the blocks, linear in the number of frames.
    """
    grid, origin = reach.grid, reach.grid.origin[0]
    end = origin + grid.frames
    start = origin - reach.past
    spans: list[Span] = []
    for frame in range(origin, end):
        low, high = (start, end) if reach.window is None else reach.in_window(frame)
        low, high = max(start, low), min(end, high)
        if reach.chunk is not None:
            high = min(high, reach.chunk_end(frame))
        query, low, high = frame - origin, low - start, high - start
        if spans and spans[-1][2:] == (low, high):
            spans[-1] = (spans[-1][0], query + 1, low, high)
        else:
            spans.append((query, query + 1, low, high))
    return spans


def softmax_attention(q: Heads, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Heads:
    """softmax(q k^T / sqrt(d)) v. ``mask`` broadcasts to b n l_q l_k; True is seen. k, v: b l_k n d."""
    if k.shape[-2] != q.shape[-2]:
        raise InternalError("queries and keys have other head counts", where=f"{q.shape} and {k.shape}")
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2)
