"""Killed ranks, also in the middle of an upload; other numbers of ranks. Drivers and nodes: test_trainer.py."""

import json
import threading
from pathlib import Path

import pytest

from train import checkpoint

from .conftest import DISTURBED, make_job
from .launch import launch, losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = DISTURBED["steps"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, undisturbed: Path, dataset: str, encoders: str) -> dict[str, Path]:
    """The undisturbed run, and the same run disturbed in several ways; all in one interpreter."""
    root = tmp_path_factory.mktemp("resume")
    jobs = [
        make_job(root / "killed", dataset, encoders, 2, **DISTURBED, kill={"rank": 1, "after_step": 10}),
        make_job(root / "killed", dataset, encoders, 2, **DISTURBED),
        make_job(root / "fewer", dataset, encoders, 2, **DISTURBED, kill={"rank": 0, "after_step": 9}),
        make_job(root / "fewer", dataset, encoders, 1, **DISTURBED),
        make_job(root / "more", dataset, encoders, 2, **DISTURBED, zero_stage=3, kill={"rank": 0, "after_step": 9}),
        make_job(root / "more", dataset, encoders, 4, **DISTURBED, zero_stage=3),
    ]
    launch(jobs)
    return {"whole": undisturbed, **{name: root / name for name in ("killed", "fewer", "more")}}


def test_a_killed_rank_costs_no_step(runs):
    """Bit for bit: the same ranks make the same sums."""
    assert len(losses(runs["whole"])) == STEPS
    assert losses(runs["killed"]) == losses(runs["whole"])


@pytest.mark.parametrize("name", ["fewer", "more"])
def test_other_ranks_continue_the_same_curve(runs, name: str):
    assert losses(runs[name]) == pytest.approx(losses(runs["whole"]), rel=1e-5)


def test_muon_continues_on_its_own_number_of_ranks(tmp_path: Path, dataset: str, encoders: str):
    how = {"optimizer": {"kind": "muon", "warmup": 5}, "checkpoint_every": 4}
    jobs = [
        make_job(tmp_path / "whole", dataset, encoders, 2, steps=8, **how),
        make_job(tmp_path / "killed", dataset, encoders, 2, steps=8, **how, kill={"rank": 1, "after_step": 5}),
        make_job(tmp_path / "killed", dataset, encoders, 2, steps=8, **how),
    ]
    launch(jobs)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    with pytest.raises(AssertionError, match="a run with Muon continues on the 2 ranks that wrote it, not on 1"):
        launch([make_job(tmp_path / "whole", dataset, encoders, 1, steps=12, **how)])


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


class Gate:
    """An S3 server (moto) that holds back every write below ``held`` after the first: an upload half done, for as long
    as the test wants. ``caught`` appears when it does."""

    def __init__(self, held: str, caught: Path):
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._app = DomainDispatcherApplication(create_backend_app)
        self._held, self._caught, self._writes, self.open = held, caught, 0, threading.Event()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _answer(self, environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT" and self._held in environ["PATH_INFO"]:
            self._writes += 1
            if self._writes > 1:
                self._caught.touch()
                self.open.wait(120)
        return self._app(environ, start_response)

    def __enter__(self) -> "Gate":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def test_a_kill_in_the_middle_of_an_upload_costs_no_step(undisturbed, dataset, encoders, tmp_path, monkeypatch):
    """The second checkpoint's files are half in the bucket when all ranks die: the first one is where it goes on."""
    import fsspec

    pytest.importorskip("moto.server")
    caught, out = tmp_path / "caught", "s3://runs/one"
    with Gate("step-00000008", caught) as gate:
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        variables = dict(zip(names, (gate.url, "test", "test", "us-east-1"), strict=True))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3 = fsspec.filesystem("s3", skip_instance_cache=True)
        s3.mkdir("runs")
        job = make_job(out, dataset, encoders, 2, **DISTURBED, scratch=str(tmp_path / "first"))
        launch([job | {"kill": {"rank": 0, "file": str(caught)}}], timeout_s=120)
        s3.invalidate_cache()
        begun = [name for name in s3.find("runs/one/checkpoints") if "step-00000008" in name]
        assert caught.exists() and not any("complete" in name for name in begun)
        gate.open.set()
        launch([job | {"scratch": str(tmp_path / "second")}], timeout_s=120)  # another machine: it has only the bucket
    assert losses(tmp_path / "second") == losses(undisturbed)
