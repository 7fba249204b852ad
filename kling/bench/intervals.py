"""95 % intervals: Wilson's for shares, bootstrap over clips for means and ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # of 95 %


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of n yes-or-no results with its 95 % interval; NaN of none."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]" if self.n else "-"


def share(values: Sequence[bool]) -> Share:
    """Wilson's score interval (1927): right also near 0 and 1 and for few values."""
    n = len(values)
    if not n:
        return Share(value=float("nan"), low=0.0, high=1.0, n=0)
    return _wilson(sum(map(bool, values)) / n, n)


def _wilson(p: float, n: int) -> Share:
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return Share(value=p, low=float(max(0.0, min(p, middle - half))), high=float(min(1.0, max(p, middle + half))), n=n)


def mean(values: Sequence[float], *, seed: int = 0, draws: int = 2000) -> Share:
    """A mean with the bootstrap's percentile interval over its values (Efron 1979)."""
    return bootstrap(
        np.asarray(values, float)[:, None], lambda rows: rows[..., 0].mean(axis=-1), seed=seed, draws=draws
    )


def bootstrap(
    rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, seed: int = 0, draws: int = 2000
) -> Share:
    """Of any statistic over clips.

    Args:
        rows: n k, one row a clip (rows are drawn together: what belongs to one clip stays together).
        statistic: of arrays ... n k, over the last two axes.
    """
    n = len(rows)
    if not n:
        return Share(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
    index = np.random.default_rng(seed).integers(n, size=(draws, n))
    low, high = np.nanquantile(statistic(rows[index]), [0.025, 0.975])
    return Share(value=float(statistic(rows)), low=float(low), high=float(high), n=n)


def clustered(groups: Sequence[Sequence[bool]]) -> Share:
    """The share of right results over several per clip, with the interval of as many results as there are clips.

    Results of one clip go together, so each clip counts as one observation: at worst the interval is too wide.
    """
    groups = [group for group in groups if len(group)]
    if not groups:
        return share([])
    p = sum(sum(map(bool, group)) for group in groups) / sum(map(len, groups))
    return _wilson(p, len(groups))
