"""Watching the loss: a step that would do harm is not taken; if it goes on, the run goes back."""

import math
from collections import deque
from enum import Enum


class Verdict(Enum):
    TAKE = "take"
    SKIP = "skip"
    ROLL_BACK = "roll back"


class LossWatch:
    """Judges each step's loss against those before it.

    A loss is harmful when it is not finite, or lies ``deviations`` standard deviations above the mean of the last
    ``memory`` losses that were taken (judged only once there are ``least``). ``patience`` harmful steps in a row mean
    that the weights, not the batch, are at fault: roll back.
    """

    def __init__(self, *, memory: int = 200, least: int = 50, deviations: float = 8.0, patience: int = 5):
        self.least, self.deviations, self.patience = least, deviations, patience
        self.losses: deque[float] = deque(maxlen=memory)
        self.in_a_row = 0

    def judge(self, loss: float) -> Verdict:
        if self.harmful(loss):
            self.in_a_row += 1
            return Verdict.ROLL_BACK if self.in_a_row >= self.patience else Verdict.SKIP
        self.in_a_row = 0
        self.losses.append(loss)
        return Verdict.TAKE

    def harmful(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        if len(self.losses) < self.least:
            return False
        mean = sum(self.losses) / len(self.losses)
        spread = math.sqrt(sum((x - mean) ** 2 for x in self.losses) / len(self.losses))
        return loss > mean + self.deviations * max(spread, 0.01 * mean)

    def state(self) -> dict:
        return {"losses": list(self.losses), "in_a_row": self.in_a_row}

    def load(self, state: dict) -> None:
        self.losses.clear()
        self.losses.extend(state["losses"])
        self.in_a_row = state["in_a_row"]
