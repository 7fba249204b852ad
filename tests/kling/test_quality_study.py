"""Planted degradations on real footage: every measure follows the level of what it is for, and the total falls.

The table in docs/benchmarks/curation.md is made of the same numbers: python -m tests.kling.test_quality_study
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from kling.media.video import read_frames
from kling.quality import diagnostics, motion, picture, semantic, stillness, temporal, total
from kling.sight import embedder
from tests.data.raw_files import footage
from tests.kling.degradations import DEGRADATIONS, LEVELS, jump_places

# Stretches without a cut: fast camera, slow nature (between two frames that the file itself repeats), a face.
CLIPS = {
    "bikes 140-173": ("bikes.mp4", 140, 33),
    "bigbuckbunny 33-57": ("bigbuckbunny.mp4", 33, 24),
    "carphone 0-33": ("carphone_pristine.mp4", 0, 33),
}
# What each degradation is to be found by, beside the total: the measure and its direction.
MEASURES: dict[str, tuple[str, int, Callable[[np.ndarray], float]]] = {
    "blur": ("detail", -1, total.detail),
    "noise": ("noise", 1, lambda clip: picture.measure(clip).noise),
    "impulses": ("noise", 1, lambda clip: picture.measure(clip).noise),
    "flicker": ("flicker", 1, lambda clip: temporal.measure(clip).flicker),
    "freeze": ("frozen frames", 1, lambda clip: len(stillness.measure(clip).frozen)),
    "frame_swap": ("motion consistency", -1, lambda clip: motion.measure(clip).consistency),
    "identity_swap": ("semantic coherence", -1, lambda clip: semantic.measure(clip, *EMBEDDERS).score),
    "jump": ("critical points", 1, lambda clip: len(temporal.measure(clip).critical)),
    "drift": ("drift", 1, lambda clip: temporal.drift(clip).change),
}
EMBEDDERS = semantic.PixelStatistics(), embedder.packaged()  # as curation measures the total


@cache
def original(name: str) -> np.ndarray:
    """f h 160 3."""
    file, start, count = CLIPS[name]
    frames = read_frames(footage() / file, max_frames=start + count)[0][start:]
    height, width = frames.shape[1:3]
    size = 160, round(height * 160 / width)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


@cache
def study(name: str, kind: str) -> tuple[float, float]:
    """Rank correlation with the level: of the degradation's own measure and of the total, turned so that 1 is right."""
    _, sign, measure = MEASURES[kind]
    spoiled = [DEGRADATIONS[kind](original(name), level, np.random.default_rng(7)) for level in LEVELS]
    own = spearmanr(LEVELS, [sign * measure(clip) for clip in spoiled]).statistic
    whole = spearmanr(LEVELS, [-total.measure(clip, *EMBEDDERS).total for clip in spoiled]).statistic
    return float(own), float(whole)


@pytest.mark.parametrize("kind", sorted(DEGRADATIONS))
@pytest.mark.parametrize("name", sorted(CLIPS))
def test_measures_follow_the_level(name, kind):
    own, whole = study(name, kind)
    assert own >= 0.9, f"{MEASURES[kind][0]} on {kind} of {name}: {own:.2f}"
    assert whole >= 0.9, f"total on {kind} of {name}: {whole:.2f}"


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_a_slight_blur_does_not_win(name):
    """It makes motion smoother; the total must fall all the same."""
    clip = original(name)
    blurred = DEGRADATIONS["blur"](clip, 1, np.random.default_rng(0))
    assert total.measure(blurred, *EMBEDDERS).total < total.measure(clip, *EMBEDDERS).total


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_every_planted_jump_is_found_and_no_other(name):
    clip = original(name)
    assert temporal.measure(clip).critical == ()
    for level in LEVELS:
        spoiled = DEGRADATIONS["jump"](clip, level, np.random.default_rng(0))
        assert list(temporal.measure(spoiled).critical) == jump_places(len(clip), level)


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_drift_is_told_from_none(name):
    clip = original(name)
    assert not temporal.drift(clip).significant
    assert temporal.drift(DEGRADATIONS["drift"](clip, 2, np.random.default_rng(0))).significant


def test_a_trend_of_noise_is_rarely_significant():
    """White and correlated noise: about one in twenty, never many more."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        series = rng.normal(size=32)
        wrong += temporal.linear_trend(series).significant
        wrong += temporal.linear_trend(series + 0.5 * np.roll(series, 1)).significant
    assert wrong / 400 < 0.09
    assert temporal.linear_trend(np.linspace(1, 0.5, 20) + rng.normal(0, 0.01, 20)).significant


@pytest.mark.parametrize(
    ("kind", "degradation", "level"),
    [
        ("flicker", "flicker", 4),
        ("blur", "blur", 5),
        ("distortion", "noise", 5),
        ("freeze", "freeze", 4),
        ("inconsistency", "jump", 2),
    ],
)
@pytest.mark.parametrize("name", sorted(CLIPS))
def test_planted_faults_are_named_and_placed(name, kind, degradation, level):
    clip = original(name)
    before = {issue.kind for issue in diagnostics.diagnose(clip)}
    assert not before & {"flicker", "blur", "distortion", "freeze", "inconsistency"}, before
    spoiled = DEGRADATIONS[degradation](clip, level, np.random.default_rng(0))
    issue = next(issue for issue in diagnostics.diagnose(spoiled) if issue.kind == kind)
    assert 0 < issue.severity <= 1 and issue.fix
    if kind == "inconsistency":
        assert list(issue.frames) == jump_places(len(clip), level)
    if kind == "freeze":
        same = [i for i in range(1, len(clip)) if (spoiled[i] == spoiled[i - 1]).all()]
        assert list(issue.frames) == same


def main() -> None:
    """Print the table of docs/benchmarks/curation.md."""
    print("| degradation | its own measure | " + " | ".join(f"{name}: own / total" for name in CLIPS) + " |")
    print("|---|---|" + "---|" * len(CLIPS))
    for kind, (measure, _, _) in MEASURES.items():
        cells = [f"{own:.2f} / {whole:.2f}" for own, whole in (study(name, kind) for name in CLIPS)]
        print(f"| {kind} | {measure} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
