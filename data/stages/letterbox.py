"""Letterbox and pillarbox bars, from the luma profiles that the scan sampled."""

import numpy as np

_DARK = 24  # luma (0..255) that no pixel of a bar exceeds
_EDGE = 20  # luma by which the picture begins at once: a night sky darkens slowly
_LEAST = 0.015  # thinner bars are left alone, as share of the side
_UNEVEN = 0.02  # by how much two bars may differ
_MOST = 0.6  # bars that would take more are no bars


def picture_box(rows: np.ndarray, columns: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of what the bars leave; the whole picture where there are none.

    Bars are dark in every sample, sharp at their edge and come in pairs of about the same width. Dark scenes, and bars
    on one side only, are left as they are: a wrong cut loses picture, a missed one only keeps black.

    Args:
        rows: n height uint8: brightest (slightly blurred) luma of each row in n frames.
        columns: n width, likewise.
    """
    top, bottom = _pair(rows)
    left, right = _pair(columns)
    return left, top, columns.shape[1] - right, rows.shape[1] - bottom


def _pair(profiles: np.ndarray) -> tuple[int, int]:
    if len(profiles) < 2:
        return 0, 0
    line = profiles.max(axis=0).astype(int)
    size, light = len(line), np.flatnonzero(line > _DARK)
    if not light.size:
        return 0, 0
    first, last = int(light[0]), size - 1 - int(light[-1])
    if min(first, last) < max(2, _LEAST * size) or abs(first - last) > max(2, _UNEVEN * size):
        return 0, 0
    if first + last > _MOST * size or not (_sharp(line, first) and _sharp(line[::-1], last)):
        return 0, 0
    soft = 1 if size >= 120 else 0  # scaled bars end in a half-dark line
    return first + soft, last + soft


def _sharp(line: np.ndarray, width: int) -> bool:
    return int(line[width : width + 4].max()) - int(line[: max(1, width - 1)].max()) >= _EDGE
