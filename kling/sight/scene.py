"""Where a clip plays and in what light, and whether it is the playground at all.

Each place under each light is a cloud of numbers about the background's colours and the shadows' sides; the clouds of
one place share their covariance (discriminant analysis, Fisher 1936). The likeliest cloud names place and light. A clip
far from every cloud is of another world: nothing that was taught on the playground may say anything about it.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kling.bench.reader import Reading
from kling.errors import CheckpointError
from kling.prompt.graph import LIGHTINGS, SETTINGS

WEIGHTS = Path(__file__).with_name("scene.safetensors")
NAMES = tuple(product(SETTINGS, LIGHTINGS))
_BANDS = 4  # of the picture, from top to bottom
_MOMENTS = 3  # frames
# A clip is of the playground up to this multiple of the distance that 99.5 % of the training clips stay within.
_ROOM = 2.0
_SHARED = 0.1  # of the covariance of all places in that of each
_SPREAD = 1e-3  # added to the variances: what never varies in training must not decide


@dataclass(frozen=True, kw_only=True)
class Place:
    """Of one clip."""

    setting: str
    lighting: str
    setting_share: float  # probability
    lighting_share: float
    distance: float  # from the nearest cloud; 1: as far as 99.5 % of the training clips are at most

    @property
    def known(self) -> bool:
        """Whether it looks like the playground."""
        return self.distance <= _ROOM


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """Means (18 d), each place's whitening (6 d d), and the largest usual distance."""

    means: np.ndarray
    whiten: np.ndarray
    usual: float

    def away(self, row: np.ndarray) -> np.ndarray:
        """6 3: distance of one clip's numbers (d) from each cloud."""
        rest = (row - self.means).reshape(len(SETTINGS), len(LIGHTINGS), -1)
        return np.linalg.norm(np.einsum("slk,skd->sld", rest, self.whiten), axis=-1)


def features(reading: Reading) -> np.ndarray:
    """d numbers of about unit size: colours of the background's bands, their spread and texture, and how sure the
    reader is of what it sees."""
    num_frames, height = reading.depth_m.shape[:2]
    found = []
    for f in np.unique(np.linspace(0, num_frames - 1, _MOMENTS).round().astype(int)):
        picture = reading.pictures[f].astype(np.float32) / 255
        free = reading.color[f, 0] > 0.9
        grain = np.abs(picture[1:, 1:] - picture[:-1, 1:] - picture[1:, :-1] + picture[:-1, :-1]).mean(-1)
        row = []
        for band in np.array_split(np.arange(height), _BANDS):
            pixels = picture[band][free[band]]
            if len(pixels) < 8:
                pixels = picture[band].reshape(-1, 3)
            inner = band[band < height - 1]
            fine = grain[inner][free[inner][:, 1:]]
            texture = np.log(0.003 + (fine.mean() if fine.size else 0.0))
            row += [*(4 * pixels.mean(0)), *np.log(0.01 + pixels.std(0)), texture]
        things = reading.color[f, 0] < 0.5
        sure = reading.color[f, 1:].max(0)[things].mean() if things.any() else 1.0
        unsure = (np.abs(reading.color[f, 0] - 0.5) < 0.4).mean()
        sides = _shadows(picture, things, reading.offset_px[f, 0])
        found.append([*row, *sides, 2 * np.sqrt(things.mean()), 4 * sure, 4 * np.sqrt(unsure)])
    return np.mean(found, axis=0)


def _shadows(picture: np.ndarray, things: np.ndarray, offset_x: np.ndarray) -> tuple[float, float]:
    """Which side of things is darker, and on which side of them the floor is: positive when the left is brighter."""
    grey = picture.mean(-1)
    if not things.any():
        return 0.0, 0.0
    own = grey[things] / grey[things].mean() - 1
    side = float(
        (own * np.sign(offset_x[things])).mean()
    )  # the offset points to the middle: it is positive on the left
    floors = []
    for sign in (1, -1):
        near = np.zeros_like(things)
        for shift in (2, 3, 4, 5):
            near |= np.roll(things, sign * shift, axis=1)
        near &= ~cv2.dilate(things.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        rows = np.repeat(np.median(grey, axis=1)[:, None], grey.shape[1], axis=1)
        floors.append(float((grey[near] / np.maximum(rows[near], 0.02)).clip(0, 2).mean()) if near.any() else 1.0)
    return 10 * side, 10 * (floors[1] - floors[0])


def fit(rows: np.ndarray, names: list[tuple[str, str]]) -> Clouds:
    """Clouds from training clips (n d) and their (setting, lighting)."""
    which, d = np.array([NAMES.index(name) for name in names]), rows.shape[1]
    means = np.full((len(NAMES), d), 1e3)  # what was never seen is never near
    for k in np.unique(which):
        means[k] = rows[which == k].mean(0)
    rest, setting = rows - means[which], which // len(LIGHTINGS)
    shared, whiten = np.cov(rest.T), np.zeros((len(SETTINGS), d, d))
    for k in range(len(SETTINGS)):
        own = np.cov(rest[setting == k].T) if (setting == k).sum() > 2 * d else shared
        whiten[k] = np.linalg.inv(np.linalg.cholesky((1 - _SHARED) * own + _SHARED * shared + _SPREAD * np.eye(d))).T
    clouds = Clouds(means=means.astype(np.float32), whiten=whiten.astype(np.float32), usual=1.0)
    usual = float(np.quantile([clouds.away(row).min() for row in rows], 0.995))
    return Clouds(means=clouds.means, whiten=clouds.whiten, usual=usual)


def place(reading: Reading, clouds: Clouds | None = None) -> Place:
    """Name one clip's place and light."""
    clouds = clouds or packaged()
    away = clouds.away(features(reading))
    size = np.log(np.abs(np.diagonal(clouds.whiten, axis1=1, axis2=2))).sum(-1)[:, None]  # log of 1 / the cloud's size
    likely = size - away**2 / 2
    share = np.exp(likely - likely.max())
    share /= share.sum()
    settings, lightings = share.sum(1), share.sum(0)
    return Place(
        setting=SETTINGS[int(settings.argmax())],
        lighting=LIGHTINGS[int(lightings.argmax())],
        setting_share=float(settings.max()),
        lighting_share=float(lightings.max()),
        distance=float(away.min() / clouds.usual),
    )


def save(clouds: Clouds, path: str) -> None:
    """Write a safetensors file."""
    usual = np.array([clouds.usual], np.float32)
    save_file({"means": clouds.means, "whiten": clouds.whiten, "usual": usual}, path)


@cache
def packaged() -> Clouds:
    """Those that come with the library.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    try:
        stored = load_file(WEIGHTS)
        return Clouds(means=stored["means"], whiten=stored["whiten"], usual=float(stored["usual"][0]))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"cannot load the weights that name places ({str(error).splitlines()[0]})",
            where=str(WEIGHTS),
            fix="Reinstall kling, or train them: python -m kling.sight train-scene --help",
        ) from error
