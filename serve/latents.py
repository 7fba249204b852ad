"""Latents in a task's folder: the sampler's state between steps, and the finished chunks of a realtime task."""

from dataclasses import dataclass

import torch
from safetensors import torch as tensor_files
from torch import Tensor

from kling import storage
from kling.diffusion.samplers import State
from kling.shapes import Latents

from .media import Media

_STATE_PARTS = ("x", "v", "x0")


def save_state(media: Media, state: State) -> None:
    """The sampler's whole state: going on from it gives what never stopping gives."""
    tensors = {name: getattr(state, name) for name in _STATE_PARTS if getattr(state, name) is not None}
    named = {f"{name}.{state.step}": tensor.contiguous() for name, tensor in tensors.items()}
    storage.write_bytes(media.latent, tensor_files.save(named))


def load_state(media: Media) -> State | None:
    if not storage.exists(media.latent):
        return None
    tensors = tensor_files.load(storage.read_bytes(media.latent))
    step = int(next(iter(tensors)).rpartition(".")[2])
    named: dict[str, Tensor] = {name.rpartition(".")[0]: tensor for name, tensor in tensors.items()}
    return State(x=named["x"], step=step, v=named.get("v"), x0=named.get("x0"))


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A finished chunk of a roll-out.

    A chunk that ``restarts`` begins a part of another size: its first latent frame is the last picture before it again.
    """

    x: Latents  # 1 c f h w
    num_steps: int
    seconds: float
    restarts: bool = False

    @property
    def own_frames(self) -> int:
        """Latent frames that are new."""
        return self.x.shape[2] - self.restarts


def save_chunk(media: Media, index: int, chunk: Chunk) -> None:
    told = torch.tensor([chunk.num_steps, chunk.seconds, float(chunk.restarts)], dtype=torch.float64)
    media.save_chunk(index, tensor_files.save({"x": chunk.x.contiguous(), "told": told}))


def load_chunk(media: Media, index: int) -> Chunk | None:
    data = media.load_chunk(index)
    if data is None:
        return None
    tensors = tensor_files.load(data)
    steps, seconds, restarts = tensors["told"].tolist()
    return Chunk(x=tensors["x"], num_steps=int(steps), seconds=seconds, restarts=bool(restarts))
