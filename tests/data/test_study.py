"""The studies behind docs/benchmarks/curation.md: on small clips, and their arithmetic."""

import numpy as np
import pytest

from data.bench import ours, plain
from data.study import study, told
from tests.data.raw_files import moving


def test_the_plain_script_of_the_race_gives_the_same_scores():
    """Else the race would compare two different things."""
    frames = moving(17)
    frames[6:] = frames[6:] // 2 + 60
    a, b = ours(frames), plain(frames)
    assert len(b) >= 25 and b["jumps"] == 1
    for name, value in b.items():
        assert a[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def test_clean_clips_raise_no_alarm_and_planted_faults_are_found():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 60, (64, 64, 1))
    frames = np.clip(moving(17).astype(int) + texture, 0, 255).astype(np.uint8)
    found = study(frames, rng, planted=True)
    assert not any(hit for name, hit in found.items() if name.startswith("clean"))
    assert found["planted jump: found at its frame"]
    assert found["planted drift of 24 grey levels: significant"]
    assert set(study(frames, rng, planted=False)) == {name for name in found if name.startswith("clean")}


def test_shares_are_told_with_their_interval():
    assert told([True] * 3 + [False] * 57) == "3 of 60 (5.0 %, 95 % interval 1.0 to 13.9)"
    assert told([False] * 200) == "0 of 200 (0.0 %, 95 % interval 0.0 to 1.8)"
    assert told([True] * 60) == "60 of 60 (100.0 %, 95 % interval 94.0 to 100.0)"
