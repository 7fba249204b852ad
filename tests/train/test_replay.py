"""A run can be made again from the record it leaves."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import train.trainer
import train.vae
from kling.errors import ConfigError, InputError
from train.__main__ import main
from train.config import ObjectiveConfig, OptimizerConfig, TrainRun, VAERun

RUN = TrainRun(
    preset="1.3b", data="s3://b/data", out="s3://b/first", batch_size=6, num_workers=3, cache="/fast", steps=12,
    objective=ObjectiveConfig(chunk_frames=(3,), shift=1.5), optimizer=OptimizerConfig(kind="muon", betas=(0.8, 0.9)),
)  # fmt: skip


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list:
    """Settings and preset that a command would have trained with."""
    made: list = []
    monkeypatch.setattr(train.trainer, "train_dit", lambda run, preset: made.append((run, preset.name)))
    monkeypatch.setattr(train.vae, "train_vae", lambda run, preset: made.append((run, preset.name)))
    return made


def write(folder: Path, stage: str, run, **more) -> str:
    (folder / "run.json").write_text(json.dumps({"stage": stage, "version": "0", **asdict(run), **more}))
    return str(folder / "run.json")


def test_a_record_is_run_again_elsewhere(tmp_path: Path, started: list):
    main(["replay", write(tmp_path, "dit", RUN), "--out", "s3://b/second"])
    main(["replay", str(tmp_path), "--out", "s3://b/third", "--steps", "20", "--objective.shift", "2"])
    other = replace(RUN, out="s3://b/third", steps=20, objective=replace(RUN.objective, shift=2.0))
    assert started == [(replace(RUN, out="s3://b/second"), "1.3b"), (other, "1.3b")]


def test_stages_of_one_process_too(tmp_path: Path, started: list):
    run = VAERun(preset="tiny", data="clips", out="first", steps=7)
    main(["replay", write(tmp_path, "vae", run), "--out", "second"])
    assert started == [(replace(run, out="second"), "tiny")]


def test_a_record_of_an_older_version_takes_new_defaults(tmp_path: Path, started: list):
    record = {"stage": "dit", "preset": "tiny", "data": "d", "out": "o", "objective": {"text_dropout": 0.5}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    main(["replay", str(tmp_path), "--out", "new"])
    expected = TrainRun(preset="tiny", data="d", out="new", objective=ObjectiveConfig(text_dropout=0.5))
    assert started == [(expected, "tiny")]


def test_what_cannot_be_replayed_is_said(tmp_path: Path, started: list):
    with pytest.raises(InputError, match="no record of a run"):
        main(["replay", str(tmp_path / "none"), "--out", "new"])
    with pytest.raises(ConfigError, match="no setting speed"):
        main(["replay", write(tmp_path, "dit", RUN, speed=3), "--out", "new"])
    with pytest.raises(InputError, match="not the record"):
        main(["replay", write(tmp_path, "cooking", RUN), "--out", "new"])
    with pytest.raises(SystemExit):  # it would continue the first one instead
        main(["replay", write(tmp_path, "dit", RUN)])
    assert not started
