"""Bad input: one clear error before any worker starts, and no worker is started."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kling.errors import CheckpointError, ConfigError, InputError, KlingError
from kling.shards import read_manifest, write_manifest
from train.config import TrainRun
from train.preflight import check_run
from train.trainer import located


def make_run(data, encoders: str, out: Path, **changed) -> TrainRun:
    fields = {"preset": "tiny", "data": str(data), "out": str(out), "weights": encoders, "batch_size": 8}
    return TrainRun(**{**fields, **changed})


@pytest.fixture
def copy(dataset: str, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "data")
    return tmp_path / "data"


def test_good_input_passes(dataset, encoders, small, tmp_path):
    assert check_run(make_run(dataset, encoders, tmp_path), small) == encoders


def test_shards_of_another_preset(copy, encoders, small, tmp_path):
    write_manifest(str(copy), replace(read_manifest(str(copy)), preset="1.3b"))
    with pytest.raises(InputError, match=r"made for preset 1\.3b, not tiny"):
        check_run(make_run(copy, encoders, tmp_path), small)


def test_missing_columns(copy, encoders, small, tmp_path):
    shard = next(copy.glob("shards/train/*/*.parquet"))
    table = pq.read_table(shard).drop_columns(["latents", "plan"])
    pq.write_table(table, shard)
    with pytest.raises(InputError, match=r"lacks columns \['latents', 'plan'\]") as caught:
        check_run(make_run(copy, encoders, tmp_path), small)
    assert shard.name in caught.value.where


def test_a_damaged_shard(copy, encoders, small, tmp_path):
    shard = next(copy.glob("shards/train/*/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot read the shard"):
        check_run(make_run(copy, encoders, tmp_path), small)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split(copy, encoders, small, tmp_path, split):
    manifest = read_manifest(str(copy))
    write_manifest(str(copy), replace(manifest, shards=tuple(s for s in manifest.shards if s.split != split)))
    with pytest.raises(InputError, match=f"the {split} split is empty"):
        check_run(make_run(copy, encoders, tmp_path), small)


def test_not_a_data_set(encoders, small, tmp_path):
    with pytest.raises(InputError, match="not a finished data set"):
        check_run(make_run(tmp_path / "none", encoders, tmp_path), small)


def test_not_encoded(copy, encoders, small, tmp_path):
    write_manifest(str(copy), replace(read_manifest(str(copy)), encoder=""))
    with pytest.raises(InputError, match="no latents"):
        check_run(make_run(copy, encoders, tmp_path), small)


def test_encoded_with_other_weights(copy, encoders, small, tmp_path):
    write_manifest(str(copy), replace(read_manifest(str(copy)), encoder="0" * 64))
    with pytest.raises(CheckpointError, match="encoded with other weights"):
        check_run(make_run(copy, encoders, tmp_path), small)


def test_a_batch_that_does_not_divide(dataset, encoders, small, tmp_path):
    with pytest.raises(ConfigError, match=r"8 clips \(bucket 64x64x17\) does not divide over 3 ranks"):
        check_run(make_run(dataset, encoders, tmp_path, num_workers=3), small)


def test_a_checkpoint_without_the_model(dataset, encoders, small, tmp_path):
    with pytest.raises(CheckpointError, match="hold no dit"):
        check_run(make_run(dataset, encoders, tmp_path, start_from=encoders), small)


def test_a_checkpoint_of_another_model(dataset, encoders, small, tmp_path):
    from kling.model.checkpoint import save_part
    from kling.model.dit import DiT

    other = replace(small.dit, num_layers=1)
    save_part(str(tmp_path / "other"), "dit", DiT(other), preset="tiny")
    with pytest.raises(CheckpointError, match="another model: its num_layers is 1, not 2"):
        check_run(make_run(dataset, encoders, tmp_path, start_from=str(tmp_path / "other")), small)


def test_another_run_in_the_same_place(dataset, encoders, small, tmp_path):
    """Continuing with another seed would be another run."""
    folder = tmp_path / "checkpoints" / "step-00000004"
    folder.mkdir(parents=True)
    done = {"progress": {"step": 4}, "num_ranks": 2, "zero_stage": 2, "files": {}}
    (folder / "complete.json").write_text(json.dumps(done))
    run = make_run(dataset, encoders, tmp_path)
    from dataclasses import asdict

    (tmp_path / "run.json").write_text(json.dumps(asdict(run)))
    check_run(run, small)
    with pytest.raises(ConfigError, match="another seed"):
        check_run(replace(run, seed=1), small)
    with pytest.raises(ConfigError, match="already at step 4"):
        check_run(replace(run, steps=3), small)


@pytest.mark.parametrize("changed", [{"steps": 0}, {"batch_size": -1}, {"num_workers": 3, "sequence_parallel": 2}])
def test_impossible_values_are_refused_when_made(changed):
    with pytest.raises(ConfigError):
        TrainRun(preset="tiny", data="d", out="o", **changed)


def test_errors_are_one_line(dataset, encoders, small, tmp_path):
    with pytest.raises(KlingError) as caught:
        check_run(make_run(tmp_path, encoders, tmp_path), small)
    assert "\n" not in str(caught.value)


def test_ranks_are_told_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They work in another folder: what the caller's shell calls out/run is nothing there."""
    monkeypatch.chdir(tmp_path)
    run = located(TrainRun(preset="tiny", data="data", out="s3://bucket/run", start_from="out/run/weights"))
    assert (run.data, run.out) == (f"{tmp_path}/data", "s3://bucket/run")
    assert (run.start_from, run.weights) == (f"{tmp_path}/out/run/weights", None)
