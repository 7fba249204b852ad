"""Places: whole files or none, named errors."""

import errno
import os
from pathlib import Path

import pytest

from kling import storage
from kling.errors import InputError, KlingError, StorageError, run_command


def test_write_and_read(tmp_path: Path):
    uri = storage.join(tmp_path, "a", "b.bin")
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.bin"]


def test_memory_protocol():
    uri = "memory://bucket/x/y.bin"
    storage.write_bytes(uri, b"data")
    assert storage.exists(uri) and storage.read_bytes(uri) == b"data"
    assert storage.list_files("memory://bucket") == ["memory:///bucket/x/y.bin"]


def test_a_place_has_one_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for uri in ("a/b", f"file://{tmp_path}/a/b", tmp_path / "a" / "b"):
        assert storage.absolute(uri) == f"{tmp_path}/a/b"
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"


def test_listing_survives_a_loop_of_links(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "動画 1.mp4").write_bytes(b"x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert storage.list_files(tmp_path) == [str(tmp_path / "sub" / "動画 1.mp4")]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uri = str(tmp_path / "x.bin")
    storage.write_bytes(uri, b"good")

    def full(fd: int):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        storage.write_bytes(uri, b"bad")
    assert Path(uri).read_bytes() == b"good"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda p: storage.read_bytes(p / "none"), InputError),
        (lambda p: storage.list_files(p / "none"), InputError),
        (lambda p: storage.read_bytes("nonsense://x/y"), StorageError),
        (lambda p: storage.write_bytes("/proc/nothing/x", b""), StorageError),
    ],
)
def test_errors_name_the_place(tmp_path: Path, call, error):
    with pytest.raises(error) as caught:
        call(tmp_path)
    assert caught.value.where and str(caught.value).count("\n") == 0


def test_a_command_ends_with_one_line_and_a_code(capsys: pytest.CaptureFixture):
    def body():
        raise InputError("cannot read\nthe video", where="a.mp4", fix="Use another")

    with pytest.raises(SystemExit) as ended:
        run_command(body)
    assert ended.value.code == InputError.exit_code
    assert capsys.readouterr().err == "error: cannot read the video: a.mp4. Use another\n"


def test_a_place_of_the_wrong_kind_is_one_line_and_a_bug_is_not(tmp_path: Path, capsys: pytest.CaptureFixture):
    def ours():
        raise OSError(errno.EBADF, "ours")

    with pytest.raises(SystemExit) as ended:
        run_command(lambda: (tmp_path / "x").read_text())  # type: ignore[arg-type]
    assert ended.value.code == StorageError.exit_code
    assert capsys.readouterr().err == f"error: cannot use this place (No such file or directory): {tmp_path / 'x'}\n"
    with pytest.raises(OSError, match="ours"):
        run_command(ours)


def test_errors_survive_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(StorageError("what", where="here", fix="Do this")))
    assert isinstance(error, KlingError) and str(error) == "what: here. Do this"
