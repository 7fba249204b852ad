"""Holding a pace: how many sampling steps the next chunk may take, and when it must become smaller.

Chunk k of a roll-out should be finished when its frames are due, at the target pace counted from the end of the first
chunk (which nobody can show before it is there). Each chunk may take its own frames' time; what it is early or late is
worked off over several chunks, so that one slow chunk does not swing the next ones. Time per step is the median of the
last chunks: a machine that becomes slower is noticed within three, a hiccup is not taken for one.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field

MIN_STEPS = 2
_SEEN = 5  # chunks that the medians are of
_EARLY_OVER, _LATE_OVER = 6.0, 3.0  # chunks over which a lead is spent, and a lag made good
_RESERVE = 0.05  # of a chunk's time, kept back: a small lead that hiccups are paid from
_SHRINK_AFTER = 2  # chunks in a row that even the fewest steps made too late


@dataclass(kw_only=True)
class Pacer:
    """Decides from what was measured; holds no clock of its own.

    Args:
        target_s: seconds a frame.
        most_steps: what quality asks for, never exceeded.
        predicted_s: seconds of one step of one latent frame, at the size it starts with, until it is measured.
    """

    target_s: float
    most_steps: int
    predicted_s: float
    late: int = field(default=0, init=False)
    _steps_s: deque[float] = field(default_factory=lambda: deque(maxlen=_SEEN), init=False)
    _fixed_s: deque[float] = field(default_factory=lambda: deque(maxlen=_SEEN), init=False)

    @property
    def step_s(self) -> float:
        """Of one latent frame."""
        return statistics.median(self._steps_s) if self._steps_s else self.predicted_s

    @property
    def fixed_s(self) -> float:
        """Of a latent frame, whatever its steps: keys and values to remember, saving."""
        return statistics.median(self._fixed_s) if self._fixed_s else self.step_s

    def steps(self, *, num_latents: int, num_frames: int, lead_s: float = 0.0) -> int:
        """Steps for a chunk of so many latent and pixel frames.

        Args:
            lead_s: how much earlier than due the chunks before it were finished; negative: later.
        """
        usable = self.target_s * num_frames * (1 - _RESERVE)
        usable += lead_s / (_EARLY_OVER if lead_s > 0 else _LATE_OVER) - self.fixed_s * num_latents
        return min(self.most_steps, max(MIN_STEPS, int(usable / (self.step_s * num_latents))))

    def measured(self, *, num_latents: int, num_steps: int, seconds: float, fixed_s: float | None) -> None:
        """What a chunk took in all, and of that outside its steps (None: the first, which has nothing before it)."""
        self._steps_s.append(max(1e-6, seconds - (fixed_s or 0.0)) / (num_steps * num_latents))
        if fixed_s is not None:
            self._fixed_s.append(fixed_s / num_latents)

    def too_large(self, *, num_latents: int, num_frames: int) -> bool:
        """Whether a chunk at the fewest steps takes longer than its frames may, chunk after chunk."""
        least = (MIN_STEPS * self.step_s + self.fixed_s) * num_latents
        self.late = self.late + 1 if least > self.target_s * num_frames else 0
        return self.late >= _SHRINK_AFTER

    def resized(self, factor: float) -> None:
        """The next chunk has ``factor`` as many tokens."""
        self.predicted_s, self.late = self.step_s * factor, 0
        self._steps_s.clear()
        self._fixed_s.clear()
