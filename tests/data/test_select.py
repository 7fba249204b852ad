"""Selections: thresholds on stored scores, read by training as a data set is."""

import os

import pyarrow as pa
import pytest

from data.__main__ import dispatch
from data.select import parse, select
from data.stages.s7_commit import parquet_bytes
from kling import shards, storage
from kling.errors import ConfigError, InputError
from train.clips import find_clips


@pytest.fixture
def dataset(tmp_path) -> str:
    """Twelve clips in two splits; sharpness 0.0, 0.1, ... 1.1; every fourth is a duplicate; clip 5 lacks `extra`."""
    where, written = str(tmp_path / "set"), []
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        rows = [
            {
                "clip_id": f"c{i}", "source": f"raw/{i}.mp4", "start_s": float(i), "end_s": i + 2.0, "split": split,
                "bucket": "64x64x17", "width_px": 64, "height_px": 64, "num_frames": 17, "fps": 8.0,
                "video": f"clips/c{i}.mp4", "captions": [], "text_states": [], "text_tokens": [],
                "scores": [("sharpness", i / 10), ("drift_p", 1 - i / 20), *([("extra", 1.0)] if i != 5 else [])],
                "duplicate_of": "c0" if i % 4 == 3 else None,
            }
            for i in numbers
        ]  # fmt: skip
        data = parquet_bytes(pa.Table.from_pylist(rows, schema=shards.SCHEMA))
        path = f"shards/{split}/part.parquet"
        storage.write_bytes(storage.join(where, path), data)
        written.append(
            shards.Shard(path=path, split=split, bucket="64x64x17", num_rows=len(rows), num_bytes=len(data), sha256="")
        )
    counts = {"files": 12, "rows": 12}
    shards.write_manifest(where, shards.Manifest(preset="tiny", encoder="", counts=counts, shards=tuple(written)))
    return where


def ids(selection: str) -> list[str]:
    manifest = shards.read_manifest(selection)
    return [row["clip_id"] for shard in manifest.shards for row in shards.read_rows(selection, shard)]


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("sharpness > 0.4", [5, 6, 7, 8, 9, 10, 11]),
        ("sharpness > 0.4 and not duplicate", [5, 6, 8, 9, 10]),
        ("0.2 <= sharpness < 0.5 or drift_p <= 0.45", [2, 3, 4, 11]),
        ("not (sharpness < 1 or duplicate == 1)", [10]),
        ("split == 'val' and start_s != 9", [8, 10, 11]),
        ("extra == 1 and sharpness > 0.3 and sharpness < 0.7", [4, 6]),
        ("sharpness > -1", list(range(12))),
    ],
)
def test_rows_that_fulfil_it_are_chosen(dataset, tmp_path, where, chosen):
    out = str(tmp_path / "chosen")
    assert select(dataset, where, out) == (len(chosen), 12)
    assert ids(out) == [f"c{i}" for i in chosen]
    manifest = shards.read_manifest(out)
    assert manifest.counts["rows"] == sum(shard.num_rows for shard in manifest.shards) == len(chosen)
    assert manifest.where == where and len(ids(dataset)) == 12


def test_training_reads_a_selection_wherever_it_lies(dataset, tmp_path, monkeypatch):
    """Relative paths at the command line; train finds the clips themselves in the data set."""
    monkeypatch.chdir(tmp_path)
    assert dispatch(["select", os.path.relpath(dataset), "--where", "sharpness > 0.55", "--out", "deep/er/sel"]) == 0
    monkeypatch.chdir("/")
    found = find_clips(str(tmp_path / "deep" / "er" / "sel"))
    assert found.train == tuple(f"{dataset}/clips/c{i}.mp4" for i in (6, 7))
    assert found.val == tuple(f"{dataset}/clips/c{i}.mp4" for i in range(8, 12))
    # A selection of a selection is one of the same rows.
    again = str(tmp_path / "again")
    assert select(str(tmp_path / "deep" / "er" / "sel"), "not duplicate", again) == (4, 6)
    assert ids(again) == ["c6", "c8", "c9", "c10"] and find_clips(again).train == (f"{dataset}/clips/c6.mp4",)
    assert shards.read_manifest(again).where == "(sharpness > 0.55) and (not duplicate)"


@pytest.mark.parametrize(
    "where",
    [
        "", "sharpness >", "__import__('os').system('true')", "scores['x'] > 1", "sharpness + 1 > 2", "lambda: 1",
        "sharpness in (1, 2)", "sharpness > 0.4; x", "[x for x in y]", "sharpness > b'1'", "x" * 10 + "(" * 500,
    ],
)  # fmt: skip
def test_nothing_but_comparisons_is_read(where):
    with pytest.raises(ConfigError):
        parse(where)


def test_what_a_person_got_wrong_is_told(dataset, tmp_path):
    out = str(tmp_path / "chosen")
    with pytest.raises(ConfigError, match=r"no clip has sharpnes\b.*There are: .*sharpness"):
        select(dataset, "sharpnes > 1", out)
    with pytest.raises(InputError, match="none of 12 clips"):
        select(dataset, "sharpness > 9", out)
    with pytest.raises(ConfigError, match="compared with a word"):
        select(dataset, "split > 1", out)
    with pytest.raises(ConfigError, match="beside its data set"):
        select(dataset, "sharpness > 0", dataset)
    with pytest.raises(InputError, match="not a finished data set"):
        select(str(tmp_path / "nowhere"), "sharpness > 0", out)
    assert not storage.exists(out)
