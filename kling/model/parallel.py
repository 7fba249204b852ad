"""One video over several ranks, put on from outside: the only file that knows a mesh.

    mesh = make_mesh(frames=2, heads=4)  # 8 ranks a video; 16 ranks: two videos at once (data parallel), and so on
    model = ParallelDiT(dit, mesh)       # takes and returns what DiT does, whole clips on every rank
    velocity = model(latents, time, text, controls=controls)

Two ways to divide the tokens of a clip, and their product:

- **frames** (halo exchange): each rank holds a run of latent frames and fetches the keys and values that lie inside the
  temporal window of its frames, from as many neighbours as the window spans. Bytes do not grow with the video.
- **heads** (Ulysses, arXiv:2309.14509): each rank holds some rows of each frame; for attention, an all-to-all gives it
  all rows of some heads, and a second one undoes it.

and **guidance**: the conditional and the unconditional half on different ranks (`Mesh.both_halves`).

Nothing has to divide anything. A rank whose share is smaller also holds the last frames (rows) of the share before, so
that all ranks have equal shapes; nobody looks at those copies. Heads are filled up with zeros.

**Bytes a rank sends in one layer, forward** (`layer_bytes`; backward sends as much again, in the other direction):
with frames F' x rows H' x columns W held, N heads in all, heads filled up to U m on U ranks, width e, s bytes a number

    heads:   4 b F' H' W (U - 1) m e s              queries, keys, values and the result, less what stays
    frames:  2 b (H W) m e s x (own frames inside the windows of each other rank, summed over the other ranks)

**Gradients** come out right when they are *averaged* over all ranks, as data parallel trainers do: each rank's gradient
is its own tokens' part, times the number of ranks of the clip. Every rank must compute the same loss from the velocity.
"""

import math
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kling.errors import ConfigError
from kling.model.attention import Grid, Memory, Reach, Span, attend, attend_spans, softmax_attention, visible_spans
from kling.model.controls import Controls
from kling.model.dit import Context, DiT
from kling.shapes import Latents, Tokens


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the mesh as this rank sees it. ``group`` is None where the axis has one rank."""

    size: int = 1
    index: int = 0
    group: dist.ProcessGroup | None = None

    def rank(self, index: int) -> int:
        assert self.group is not None
        return dist.get_global_rank(self.group, index)


@dataclass(kw_only=True)
class Traffic:
    """Bytes of token data this rank sent since it was last set to zero, forward and backward."""

    bytes_sent: int = 0


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The ranks of one video: ``frames x heads``, times 2 where guidance is split."""

    frames: Axis = field(default_factory=Axis)
    heads: Axis = field(default_factory=Axis)
    guidance: Axis = field(default_factory=Axis)
    traffic: Traffic = field(default_factory=Traffic)

    def both_halves(self, mine: Tensor) -> Tensor:
        """The conditional velocity, then the unconditional one: rank 0 of the guidance axis computed the first, rank 1
        the second. For sampling, not for training. 2b c f h w."""
        if self.guidance.size != 2:
            raise ConfigError("guidance is not split over two ranks", fix="Use make_mesh(guidance=2)")
        halves = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(halves, mine.contiguous(), group=self.guidance.group)
        return torch.cat(halves)


def make_mesh(*, frames: int = 1, heads: int = 1, guidance: int = 1, device_type: str = "cpu") -> Mesh:
    """Arrange all ranks of the process group as videos x guidance x frames x heads (heads: the fastest link).

    Every rank must call it, with the same sizes.

    Raises:
        ConfigError: the ranks cannot be arranged so, or guidance is neither 1 nor 2.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    each = frames * heads * guidance
    if min(frames, heads) < 1 or guidance not in (1, 2) or world % each:
        raise ConfigError(
            f"{world} ranks cannot be arranged as guidance {guidance} x frames {frames} x heads {heads}",
            where="make_mesh",
            fix="The product must divide the number of ranks; guidance is 1 or 2",
        )
    if each == 1:
        return Mesh()
    names = ("data", "guidance", "frames", "heads")
    device_mesh = dist.init_device_mesh(device_type, (world // each, guidance, frames, heads), mesh_dim_names=names)

    def axis(name: str) -> Axis:
        size = device_mesh[name].size()
        return Axis(
            size=size, index=device_mesh.get_local_rank(name), group=device_mesh.get_group(name) if size > 1 else None
        )

    return Mesh(frames=axis("frames"), heads=axis("heads"), guidance=axis("guidance"))


@dataclass(frozen=True, kw_only=True)
class Part:
    """A rank's share [own, stop) of an axis, and what it holds: [start, stop), as much as the largest share."""

    start: int
    own: int
    stop: int

    @property
    def held(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def copies(self) -> int:
        """Leading frames (rows) that are another rank's."""
        return self.own - self.start


def split(size: int, ranks: int) -> list[Part]:
    """Shares that differ by at most one, the larger ones first; some are empty where there are more ranks."""
    small, extra = divmod(size, ranks)
    held = small + (extra > 0)
    stops = [small * i + min(i, extra) for i in range(1, ranks + 1)]
    return [Part(start=stop - held, own=own, stop=stop) for own, stop in zip([0, *stops[:-1]], stops, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the tokens of one clip lie on the ranks. Pure arithmetic: no process group, no tensor."""

    grid: Grid  # of the whole clip
    frame_ranks: int
    head_ranks: int

    @property
    def frames(self) -> list[Part]:
        return split(self.grid.frames, self.frame_ranks)

    @property
    def rows(self) -> list[Part]:
        return split(self.grid.height, self.head_ranks)

    def needs(self, rank: int, reach: Reach) -> tuple[int, int]:
        """Frames [low, high) whose keys the own frames of a frame rank see. Of ``reach``, window and chunks count."""
        part = self.frames[rank]
        spans = self.spans(rank, reach)
        return min((s[2] for s in spans), default=part.own), max((s[3] for s in spans), default=part.own)

    def spans(self, rank: int, reach: Reach) -> list[Span]:
        """`visible_spans` of the own frames of a frame rank, counted in frames of the whole clip."""
        part = self.frames[rank]
        whole = visible_spans(replace(reach, grid=self.grid))
        inside = [(max(first, part.own), min(last, part.stop), low, high) for first, last, low, high in whole]
        return [span for span in inside if span[0] < span[1]]

    def sends(self, rank: int, reach: Reach) -> dict[int, tuple[int, int]]:
        """Frames [low, high) of its own that a frame rank sends to each other one that needs any."""
        own, out = self.frames[rank], {}
        for other in range(self.frame_ranks):
            low, high = self.needs(other, reach)
            low, high = max(low, own.own), min(high, own.stop)
            if other != rank and low < high:
                out[other] = (low, high)
        return out

    def layer_bytes(
        self, rank: int, reach: Reach, *, num_heads: int, head_dim: int, batch: int = 1, number_bytes: int = 4
    ) -> int:
        """What frame rank ``rank`` (any of its head ranks) sends in one layer, forward. See the top of this file."""
        heads_each = math.ceil(num_heads / self.head_ranks)
        each = batch * heads_each * head_dim * number_bytes  # bytes a token
        held = (self.frames[0].stop - self.frames[0].start) * (self.rows[0].stop - self.rows[0].start) * self.grid.width
        swapped = 4 * held * (self.head_ranks - 1) * each
        sent_frames = sum(high - low for low, high in self.sends(rank, reach).values())
        return swapped + 2 * sent_frames * self.grid.frame_tokens * each


class ParallelDiT(nn.Module):
    """A `DiT` whose ranks each compute a part of every clip. Same call, same result, same gradients (see above).

    Every rank passes the whole inputs and gets the whole velocity: latents are small, it is tokens that are large. Text
    and controls are prepared on every rank (the text is short), and their tokens divided like the latents.
    """

    def __init__(self, dit: DiT, mesh: Mesh):
        super().__init__()
        self.dit, self.mesh = dit, mesh

    def forward(
        self,
        latents: Latents,
        time: Float[Tensor, " b"] | Float[Tensor, "b f"],
        text: Tokens | Context,
        *,
        text_mask: Bool[Tensor, "b l"] | None = None,
        image: Tokens | None = None,
        controls: Controls | None = None,
        origin: tuple[int, int, int] = (0, 0, 0),
        chunk: int | None = None,
        first_chunk: int | None = None,
        memory: list[Memory] | None = None,
    ) -> Latents:
        """As `DiT.forward`.

        Raises:
            ConfigError: as there; or a roll-out's memory where frames are divided (divide heads instead).
        """
        mesh = self.mesh
        if memory is not None and mesh.frames.size > 1:
            raise ConfigError(
                "a roll-out's memory cannot be divided by frames", fix="Divide by heads: make_mesh(heads=...)"
            )
        context = (
            text
            if isinstance(text, Context)
            else self.prepare(text, text_mask=text_mask, image=image, controls=controls)
        )
        grid = self.dit.grid(latents, origin)
        layout = Layout(grid=grid, frame_ranks=mesh.frames.size, head_ranks=mesh.heads.size)
        frames, rows = layout.frames[mesh.frames.index], layout.rows[mesh.heads.index]
        pf, ph, _ = self.dit.config.patch
        local = latents[:, :, frames.start * pf : frames.stop * pf, rows.start * ph : rows.stop * ph]
        velocity = self.dit(
            local,
            time[:, frames.held] if time.ndim == 2 and time.shape[1] > 1 else time,
            _divide(context, grid, frames, rows),
            origin=(origin[0] + frames.start, origin[1] + rows.start, origin[2]),
            chunk=chunk,
            first_chunk=first_chunk,
            attend=ParallelAttention(mesh, layout),
            memory=memory,
        )
        velocity = _Gather.apply(velocity, 3, [_scale(part, ph) for part in layout.rows], mesh.heads)
        return _Gather.apply(velocity, 2, [_scale(part, pf) for part in layout.frames], mesh.frames)

    def prepare(self, text: Tokens, **given) -> Context:
        """`DiT.prepare`, of the whole clip."""
        return self.dit.prepare(text, **given)

    def new_memory(self) -> list[Memory]:
        """`DiT.new_memory`; each rank keeps its own heads."""
        return self.dit.new_memory()


class ParallelAttention:
    """What stands at the seam of attention on each rank: rows for heads (if heads are divided), then the halo."""

    def __init__(self, mesh: Mesh, layout: Layout):
        self.mesh, self.layout = mesh, layout

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, reach: Reach, memory: Memory | None = None, /) -> Tensor:
        if self.mesh.heads.size == 1:
            return self._over_frames(q, k, v, reach, memory)
        axis, rows, num_heads = self.mesh.heads, self.layout.rows, q.shape[2]
        spare = -num_heads % axis.size
        shape = dict(f=reach.grid.frames, h=reach.grid.height, w=reach.grid.width)
        qkv = nn.functional.pad(torch.stack((q, k, v)), (0, 0, 0, spare))  # 3 b l n e
        qkv = rearrange(qkv, "three b (f h w) (u m) e -> u three b f h w m e", u=axis.size, **shape)
        qkv = _AllToAll.apply(qkv, axis, self.mesh.traffic)  # u is now the rank whose rows they are
        qkv = torch.cat([qkv[i, :, :, :, part.copies :] for i, part in enumerate(rows)], dim=3)
        q, k, v = rearrange(qkv, "three b f h w m e -> three b (f h w) m e")
        whole = replace(reach, grid=replace(self.layout.grid, frames=reach.grid.frames))
        y = self._over_frames(q, k, v, whole, memory)
        y = rearrange(y, "b (f h w) m e -> b f h w m e", f=reach.grid.frames, w=reach.grid.width)
        y = torch.stack([y[:, :, part.held] for part in rows])  # u b f h w m e
        y = _AllToAll.apply(y, axis, self.mesh.traffic)  # u is the rank whose heads they are
        return rearrange(y, "u b f h w m e -> b (f h w) (u m) e")[:, :, :num_heads]

    def _over_frames(self, q: Tensor, k: Tensor, v: Tensor, reach: Reach, memory: Memory | None) -> Tensor:
        if self.mesh.frames.size == 1:
            return attend(q, k, v, reach, memory)
        layout, index, size = self.layout, self.mesh.frames.index, reach.grid.frame_tokens
        part = layout.frames[index]
        copies = part.copies * size
        out = []
        if copies:  # nobody looks at the result; it only keeps every rank's graph alike
            out.append(softmax_attention(q[:, :copies], k[:, :copies], v[:, :copies]))
        if part.own < part.stop:
            kv = torch.stack((k[:, copies:], v[:, copies:]))
            k, v = _Halo.apply(kv, layout, reach, self.mesh).unbind(0)  # frames [low, ...) that the own ones see
            low, _ = layout.needs(index, reach)
            spans = [(a - part.own, b - part.own, c - low, d - low) for a, b, c, d in layout.spans(index, reach)]
            out.append(attend_spans(q[:, copies:], k, v, spans, size))
        return torch.cat(out, dim=1)


class _AllToAll(torch.autograd.Function):
    """Slice i of the first axis goes to rank i; slice i of the result came from rank i. Its own gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, axis: Axis, traffic: Traffic) -> Tensor:
        ctx.axis, ctx.traffic = axis, traffic
        return _swap(x, axis, traffic)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        return _swap(grad_outputs[0], ctx.axis, ctx.traffic), None, None


def _swap(x: Tensor, axis: Axis, traffic: Traffic) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x, group=axis.group)
    traffic.bytes_sent += x[0].numel() * x.element_size() * (axis.size - 1)
    return out


class _Halo(torch.autograd.Function):
    """Own frames of keys and values (2 b l n e) to all the frames that the own ones see; gradients flow back."""

    @staticmethod
    def forward(ctx, kv: Tensor, layout: Layout, reach: Reach, mesh: Mesh) -> Tensor:
        index, size = mesh.frames.index, reach.grid.frame_tokens
        own = layout.frames[index]
        low, high = layout.needs(index, reach)
        given = [layout.sends(rank, reach) for rank in range(layout.frame_ranks)]
        ctx.gives = {other: _tokens(span, own.own, size) for other, span in given[index].items()}
        ctx.takes = {other: _tokens(to[index], low, size) for other, to in enumerate(given) if index in to}
        ctx.own, ctx.mesh = _tokens((own.own, own.stop), low, size), mesh
        out = kv.new_empty(*kv.shape[:2], (high - low) * size, *kv.shape[3:])
        out[:, :, ctx.own] = kv
        for other, piece in _exchange(kv, ctx.gives, out, ctx.takes, mesh).items():
            out[:, :, ctx.takes[other]] = piece
        return out

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad,) = grad_outputs
        own = grad[:, :, ctx.own].clone()
        for other, piece in _exchange(grad, ctx.takes, own, ctx.gives, ctx.mesh).items():
            own[:, :, ctx.gives[other]] += piece
        return own, None, None, None


def _tokens(frames: tuple[int, int], first: int, size: int) -> slice:
    """Where the tokens of frames [low, high) lie in a tensor whose first frame is ``first``."""
    return slice((frames[0] - first) * size, (frames[1] - first) * size)


def _exchange(
    source: Tensor, gives: dict[int, slice], target: Tensor, takes: dict[int, slice], mesh: Mesh
) -> dict[int, Tensor]:
    """Send slices of ``source`` to frame ranks, receive pieces as large as slices of ``target``."""
    axis, sent, received, operations = mesh.frames, [], {}, []
    for other, tokens in gives.items():
        sent.append(source[:, :, tokens].contiguous())  # kept alive until the sends are done
        operations.append(dist.P2POp(dist.isend, sent[-1], axis.rank(other), axis.group))
        mesh.traffic.bytes_sent += sent[-1].numel() * sent[-1].element_size()
    for other, tokens in takes.items():
        received[other] = torch.empty_like(target[:, :, tokens], memory_format=torch.contiguous_format)
        operations.append(dist.P2POp(dist.irecv, received[other], axis.rank(other), axis.group))
    for work in dist.batch_isend_irecv(operations) if operations else []:
        work.wait()
    return received


class _Gather(torch.autograd.Function):
    """The ranks' shares of an axis side by side, on every rank. Backward: the own share of the gradient, times the
    number of ranks, so that the average over ranks is the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, dim: int, parts: list[Part], axis: Axis) -> Tensor:
        ctx.dim, ctx.parts, ctx.axis = dim, parts, axis
        if axis.size == 1:
            return x
        pieces = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in parts]
        dist.all_gather(pieces, x.contiguous(), group=axis.group)
        own = [piece.narrow(dim, p.copies, p.stop - p.own) for piece, p in zip(pieces, parts, strict=True)]
        return torch.cat(own, dim=dim)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad,) = grad_outputs
        if ctx.axis.size == 1:
            return grad, None, None, None
        part: Part = ctx.parts[ctx.axis.index]
        mine = grad.narrow(ctx.dim, part.own, part.stop - part.own) * ctx.axis.size
        before = [0, 0] * (grad.ndim - 1 - ctx.dim) + [part.copies, 0]
        return nn.functional.pad(mine, before), None, None, None


def _divide(context: Context, grid: Grid, frames: Part, rows: Part) -> Context:
    """The part of a prepared context that belongs to some frames and rows of a clip."""

    def on_grid(x: Tensor | None, held: slice = slice(None)) -> Tensor | None:  # b f s d
        if x is None:
            return None
        x = rearrange(x, "b f (h w) d -> b f h w d", w=grid.width)[:, held, rows.held]
        return rearrange(x, "b f h w d -> b f (h w) d")

    def at_edge(x: Tensor | None, here: bool) -> Tensor | None:
        x = on_grid(x)
        # Elsewhere it is added as zero, not left out: every rank's graph holds the same parameters.
        return x if here or x is None else x * 0

    controls = context.controls
    controls = replace(
        controls,
        tokens=on_grid(controls.tokens, frames.held),
        first_frame=at_edge(controls.first_frame, frames.start == 0),
        last_frame=at_edge(controls.last_frame, frames.stop == grid.frames),
    )
    return replace(context, controls=controls)


def _scale(part: Part, patch: int) -> Part:
    """A share in latents of a share in tokens."""
    return Part(start=part.start * patch, own=part.own * patch, stop=part.stop * patch)
