"""The demo's own care: whose folders it empties, how footage gets in. The loop itself is run by `make demo`."""

from pathlib import Path

import pytest

from kling import demo
from kling.errors import ConfigError, StorageError


def test_a_folder_that_no_demo_made_is_not_emptied(tmp_path: Path):
    mine = tmp_path / "input" / "holiday.mp4"
    mine.parent.mkdir()
    mine.write_bytes(b"x")
    with pytest.raises(ConfigError, match="not made by a demo"):
        demo._make_room(tmp_path)
    assert mine.exists()


def test_a_demo_starts_afresh_in_its_own_folder(tmp_path: Path):
    demo._make_room(tmp_path)
    for name in ("run/old", "letters/kept"):
        (tmp_path / name).mkdir(parents=True)
    demo._make_room(tmp_path)
    assert not (tmp_path / "run").exists() and (tmp_path / "letters" / "kept").exists()


def test_too_little_room_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "_NEEDED_BYTES", 10**18)
    with pytest.raises(StorageError, match="are needed"):
        demo._make_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_footage_keeps_its_names_folders_and_sidecars(tmp_path: Path):
    videos, target = tmp_path / "動画 1", tmp_path / "in" / "footage"
    for name in ("a b.mp4", "a b.json", "sub/a b.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_text(name)
    demo._link(demo._footage(str(videos)), target)
    linked = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert linked == {name: name for name in ("a b.mp4", "a b.json", "sub/a b.mp4")}


def test_the_packaged_footage_is_there():
    assert "bikes.mp4" in demo._footage(None)
