"""Runs that are stopped: killed ranks, killed drivers, another number of ranks, a full disk."""

import json
from pathlib import Path

import pytest

from train import checkpoint

from .launch import launch, losses
from .test_exactness import make_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory, dataset: str, encoders: str) -> dict[str, Path]:
    """One undisturbed run, and the same run disturbed in several ways; all in one interpreter."""
    root = tmp_path_factory.mktemp("resume")
    how = {"steps": STEPS, "checkpoint_every": 4, "keep_checkpoints": 10}
    jobs = [
        make_job(root / "whole", dataset, encoders, 2, **how),
        make_job(root / "killed", dataset, encoders, 2, **how, kill={"rank": 1, "after_step": 10}),
        make_job(root / "killed", dataset, encoders, 2, **how),
        make_job(root / "fewer", dataset, encoders, 2, **how, kill={"rank": 0, "after_step": 9}),
        make_job(root / "fewer", dataset, encoders, 1, **how),
        make_job(root / "more", dataset, encoders, 2, **how, zero_stage=3, kill={"rank": 0, "after_step": 9}),
        make_job(root / "more", dataset, encoders, 4, **how, zero_stage=3),
    ]
    launch(jobs)
    return {name: root / name for name in ("whole", "killed", "fewer", "more")}


def test_a_killed_rank_costs_no_step(runs):
    """Bit for bit: the same ranks make the same sums."""
    assert len(losses(runs["whole"])) == STEPS
    assert losses(runs["killed"]) == losses(runs["whole"])


@pytest.mark.parametrize("name", ["fewer", "more"])
def test_other_ranks_continue_the_same_curve(runs, name: str):
    assert losses(runs[name]) == pytest.approx(losses(runs["whole"]), rel=1e-5)


def test_a_damaged_checkpoint_is_passed_over(runs, tmp_path: Path):
    newest = checkpoint.latest(str(runs["whole"]))
    assert newest is not None and newest.progress.step == STEPS
    name = next(iter(newest.files))
    damaged = Path(newest.uri, name)
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    try:
        before = checkpoint.latest(str(runs["whole"]))
        assert before is not None and before.progress.step == STEPS - 4
    finally:
        damaged.write_bytes(content)


def test_an_unfinished_checkpoint_is_none(runs, tmp_path: Path):
    folder = tmp_path / "checkpoints" / "step-00000004"
    folder.mkdir(parents=True)
    (folder / "ema-00000.pt").write_bytes(b"half")
    assert checkpoint.latest(str(tmp_path)) is None


def test_the_weights_folder_is_whole(runs):
    card = json.loads((runs["whole"] / "weights" / "kling.json").read_text())
    assert sorted(card["parts"]) == ["dit", "text", "vae"]
    assert f"{STEPS} steps" in card["parts"]["dit"]["note"]
