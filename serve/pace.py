"""Holding a pace: how many sampling steps the next chunk may take, and when it must become smaller.

Chunk k of a roll-out should be finished when its frames are due, at the target pace counted from the end of the first
chunk (which nobody can show before it is there). Time per step is followed by a running mean, so that a machine that
becomes slower or faster is noticed within a chunk or two.
"""

from dataclasses import dataclass, field

MIN_STEPS = 2
_FORGET = 0.5  # weight of the newest measurement
_RESERVE = 0.05  # of the time to the due moment, kept for what was not foreseen
_SHRINK_AFTER = 2  # chunks in a row that even the fewest steps made too late


@dataclass(kw_only=True)
class Pacer:
    """Decides from what was measured; holds no clock of its own.

    Args:
        target_s: seconds a frame.
        most_steps: what quality asks for, never exceeded.
        step_s: predicted seconds of one step of one latent frame, at the size it starts with.
    """

    target_s: float
    most_steps: int
    step_s: float
    fixed_s: float = 0.0  # of a latent frame, whatever its steps: keys and values to remember, saving
    late: int = field(default=0, init=False)

    def steps(self, *, num_latents: int, left_s: float) -> int:
        """Steps for a chunk of so many latent frames that is due in ``left_s``."""
        usable = left_s * (1 - _RESERVE) - self.fixed_s * num_latents
        return max(MIN_STEPS, min(self.most_steps, int(usable / (self.step_s * num_latents))))

    def measured(self, *, num_latents: int, num_steps: int, seconds: float, fixed_s: float) -> None:
        """What a chunk took in all, and of that outside its steps."""
        step_s = max(1e-6, seconds - fixed_s) / (num_steps * num_latents)
        self.step_s += _FORGET * (step_s - self.step_s)
        self.fixed_s += _FORGET * (fixed_s / num_latents - self.fixed_s)

    def too_large(self, *, num_latents: int, num_frames: int) -> bool:
        """Whether a chunk at the fewest steps takes longer than its frames may, chunk after chunk."""
        least = (MIN_STEPS * self.step_s + self.fixed_s) * num_latents
        self.late = self.late + 1 if least > self.target_s * num_frames else 0
        return self.late >= _SHRINK_AFTER

    def resized(self, factor: float) -> None:
        """The next chunk has ``factor`` as many tokens."""
        self.step_s, self.fixed_s, self.late = self.step_s * factor, self.fixed_s * factor, 0
