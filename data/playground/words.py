"""The form of the vocabulary tables (words_en.py, words_ja.py) and how a word is drawn from them."""

from dataclasses import dataclass

import numpy as np

_RESERVED_SHARE = 0.4


@dataclass(frozen=True)
class Words:
    """The ways to say one thing. ``reserved`` ones are never said in the training split."""

    usual: tuple[str, ...]
    reserved: tuple[str, ...] = ()


def w(usual: str, reserved: str = "") -> Words:
    """``w("ball|sphere", "orb")``: alternatives are separated by "|"."""
    return Words(tuple(usual.split("|")), tuple(reserved.split("|")) if reserved else ())


class Chooser:
    """Draws words for one caption; the training split gets usual words only."""

    def __init__(self, rng: np.random.Generator, split: str):
        self.rng, self._train = rng, split == "train"

    def word(self, words: Words) -> str:
        pool = words.usual
        if words.reserved and not self._train and self.rng.random() < _RESERVED_SHARE:
            pool = words.reserved
        return pool[int(self.rng.integers(len(pool)))]

    def one(self, *options: str) -> str:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)
