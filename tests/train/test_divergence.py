"""Clips whose latents are not finite: steps are skipped, a run of them is gone back over, and all of it is recorded."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kling.shards import read_manifest, write_manifest
from train.batches import Order

from .conftest import make_job, write_dataset
from .launch import launch, losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CLIPS, BATCH = 40, 4
BAD_STEPS = (1, 4, 5, 6, 7, 8)  # one alone, and five in a row after the checkpoint at 4
HOW = {"batch_size": BATCH, "steps": 9, "checkpoint_every": 4}  # step 8 is among harmful ones: no checkpoint


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory, encoders: str) -> str:
    """In each of BAD_STEPS one clip is not finite: the last of the batch, so on the last rank, in its last part."""
    folder = tmp_path_factory.mktemp("poisoned")
    write_dataset(folder, encoders, {("train", "64x64x17"): CLIPS})
    shard = next(folder.glob("shards/train/*/*.parquet"))
    rows = pq.read_table(shard).to_pylist()
    by_id = sorted(rows, key=lambda row: row["clip_id"])
    order = Order([CLIPS], [BATCH], 0)
    for step in BAD_STEPS:
        row = by_id[order.clips(step)[-1]]
        latents = np.frombuffer(row["latents"], np.float16).copy()
        latents[7] = np.nan
        row["latents"] = latents.tobytes()
    pq.write_table(type(pq.read_table(shard)).from_pylist(rows, schema=pq.read_schema(shard)), shard)
    manifest, raw = read_manifest(str(folder)), shard.read_bytes()
    told = replace(manifest.shards[0], num_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    write_manifest(str(folder), replace(manifest, shards=(told,)))
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, poisoned: str, encoders: str) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    arrangements = {
        "1": {"world": 1},
        "2 x 2": {"world": 2, "micro_batches": 2},
        "zero 3, 2 x 2": {"world": 2, "zero_stage": 3, "micro_batches": 2},
    }
    launch(
        [make_job(root / name, poisoned, encoders, **HOW | how) for name, how in arrangements.items()], timeout_s=500
    )
    return {name: root / name for name in arrangements}


def events(out: Path) -> list[dict]:
    told = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [event for event in told if event["event"] in ("skipped a step", "rolled back")]


def test_harm_is_skipped_gone_back_over_and_recorded(runs):
    told = events(runs["1"])
    assert [event["step"] for event in told[:5]] == [1, 4, 5, 6, 7]
    assert all(event["event"] == "skipped a step" and len(event["clip_ids"]) == BATCH for event in told[:5])
    assert told[5]["event"] == "rolled back" and (told[5]["step"], told[5]["to"]) == (8, 4)
    lines = [json.loads(line) for line in (runs["1"] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["loss"] is None][:5] == [2, 5, 6, 7, 8]
    again = next(line for line in lines[8:] if line["step"] == 5)
    assert again["data_step"] == 10 and again["loss"] > 0  # with the clips behind the harmful ones
    assert lines[-1]["step"] == 9


@pytest.mark.parametrize("name", ["2 x 2", "zero 3, 2 x 2"])
def test_gradients_of_a_skipped_step_leave_no_trace(runs, name: str):
    """The first parts of the harmful batches were good and their gradients are there when the last one is judged."""
    one, other = ({k: v for k, v in losses(runs[n]).items() if v is not None} for n in ("1", name))
    assert len(one) >= 4
    assert other == pytest.approx(one, rel=1e-5)
    assert [e["step"] for e in events(runs[name])] == [e["step"] for e in events(runs["1"])]


def test_harm_from_the_start_ends_the_run(poisoned: str, encoders: str, tmp_path: Path):
    """No checkpoint to go back to: five harmful steps in a row end it, with the place to look."""
    seed = next(s for s in range(1000) if _all_bad(s))
    with pytest.raises(AssertionError, match="harmful for 5 steps in a row"):
        launch([make_job(tmp_path, poisoned, encoders, 1, **HOW | {"batch_size": 8, "seed": seed})])


def _all_bad(seed: int) -> bool:
    bad = {int(Order([CLIPS], [BATCH], 0).clips(step)[-1]) for step in BAD_STEPS}
    order = Order([CLIPS], [8], seed)
    return all(bad & set(map(int, order.clips(step))) for step in range(5))
