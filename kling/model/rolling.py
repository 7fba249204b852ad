"""A clip made chunk by chunk: what each branch of guidance is told, and what it remembers of the chunks before."""

from torch import Tensor, zeros

from kling.model.dit import Context, DiT
from kling.model.parallel import ParallelDiT
from kling.shapes import Latents


class Rolling:
    """One clip's chunk-causal roll-out through a transformer.

    Args:
        contexts: one a branch, of the whole clip (`DiT.prepare`).
        num_frames: latent frames of the clip.
    """

    def __init__(self, model: DiT | ParallelDiT, contexts: list[Context], *, num_frames: int):
        self._model, self._num_frames = model, num_frames
        self._branches = [(context, model.new_memory()) for context in contexts]

    def evaluated(self, x: Tensor, t: Tensor, frame: int) -> list[Tensor]:
        """Each branch's velocity of a chunk (b c f h w) that begins at latent frame ``frame``."""
        made = []
        for context, memory in self._branches:
            part = context.crop(frame, frame + x.shape[2], self._num_frames)
            made.append(self._model(x, t, part, origin=(frame, 0, 0), memory=memory))
        return made

    def remember(self, x: Latents, frame: int) -> None:
        """One more evaluation, of the clean chunk, adds its keys and values."""
        layers = [layer for _, memory in self._branches for layer in memory]
        for layer in layers:
            layer.remember = True
        self.evaluated(x, zeros(len(x), device=x.device), frame)
        for layer in layers:
            layer.remember = False
