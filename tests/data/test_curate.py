"""Curation end to end through Ray Data: bad files, kills, new files, object storage, 2000 files, a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray.data as ray_data
import torch

from data.ledger import checked_counts, read_ledger
from data.pipeline import Job, curate, flow
from data.tries import Tries
from data.work import Outcome, Source
from kling import shards, storage
from kling.errors import ConfigError, InternalError
from kling.media.video import read_frames
from kling.model.checkpoint import save_part
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import get_preset
from tests.data.raw_files import every_kind, footage, moving, write

# Starting workers takes seconds on a free machine and minutes on a crowded one.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
TINY = get_preset("tiny")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("weights"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_part(folder, "vae", VideoVAE(TINY.vae), preset="tiny")
        save_part(folder, "text", TextEncoder(TINY.text), preset="tiny")
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("input") / "raw"
    folder.mkdir()
    expected = every_kind(folder)
    shutil.copy(footage() / "bikes.mp4", folder)
    return folder, expected | {"bikes.mp4": "done: "}


@pytest.fixture(scope="module")
def curated(raw, weights, tmp_path_factory, ray_cluster) -> Path:
    """One undisturbed run over every kind of file, encoded."""
    dataset = tmp_path_factory.mktemp("curated") / "set"
    curate(job(raw[0], dataset, weights), lambda done, total: None)
    return dataset


def job(inputs: Path | str, dataset: Path | str, weights: str | None = None) -> Job:
    return Job(
        preset=TINY,
        inputs=(str(inputs),),
        dataset=str(dataset),
        weights=weights,
        encoder="seeded" if weights else "",
        num_workers=2,
    )


def contents(dataset: Path) -> dict[str, bytes]:
    """Every file that is part of the data set (work/ is how it was made)."""
    files = [p for p in dataset.rglob("*") if p.is_file() and p.relative_to(dataset).parts[0] != "work"]
    return {str(p.relative_to(dataset)): p.read_bytes() for p in files}


def driver(ray_cluster, code: str, hook: str = "", **env: str) -> subprocess.Popen:
    """Another process that drives the session's cluster; ``hook`` ("module.function") runs first in its workers."""
    address = ray_cluster.get_runtime_context().gcs_address
    environment: dict = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}}
    environment |= {"worker_process_setup_hook": hook} if hook else {}
    start = f"import ray; ray.init({address!r}, runtime_env={environment!r}, log_to_driver=False)\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code], cwd=ROOT, env={**os.environ, **env}, start_new_session=True
    )


@pytest.mark.slow
def test_every_bad_file_ends_with_its_reason(curated, raw):
    told = {o.source: f"{o.state}: {o.reason} {' '.join(o.warnings)}" for o in read_ledger(str(curated))}
    assert set(told) == {f"raw/{name}" for name in raw[1]}, "every file once; a sidecar is no file of its own"
    for name, expected in raw[1].items():
        state, _, reason = expected.partition(": ")
        assert told[f"raw/{name}"].startswith(state), (name, told[f"raw/{name}"])
        assert reason in told[f"raw/{name}"], (name, told[f"raw/{name}"])
        assert state == "done" or told[f"raw/{name}"] != f"{state}:  ", f"no reason for {name}"
    counts = shards.read_manifest(str(curated)).counts
    assert counts["files"] == len(raw[1]) == counts["done"] + counts["filtered"] + counts["failed"]
    assert counts["clips"] == counts["rows"] + counts["failed_clips"] and counts["failed_clips"] == 1


def test_rows_are_whole(curated):
    manifest = shards.read_manifest(str(curated))
    rows = [row for shard in manifest.shards for row in shards.read_rows(str(curated), shard)]
    assert len(rows) == manifest.counts["rows"] == len({row["clip_id"] for row in rows})
    for row in rows:
        frames, fps = read_frames(curated / row["video"])
        assert frames.shape == (17, 64, 64, 3) and fps == 8
        latents = shards.latents_of(row)
        assert latents.shape == (TINY.vae.z_dim, 5, 8, 8) and np.isfinite(latents).all()
        assert len(row["text_states"]) == len(row["captions"]) == 2
        assert shards.text_states_of(row, 0, TINY.text.width).shape[0] == row["text_tokens"][0]
        assert all(np.isfinite(value) for value in dict(row["scores"]).values())
        assert row["plan"] is None and row["captions"][0]["family"] == "template"
    bikes = next(o for o in read_ledger(str(curated)) if o.source == "raw/bikes.mp4")
    assert bikes.num_shots == 6, "cuts at frames 30, 76, 137, 187, 242"


def test_a_rotated_file_stands_upright(curated):
    manifest = shards.read_manifest(str(curated))
    rows = [row for shard in manifest.shards for row in shards.read_rows(str(curated), shard, ["source", "video"])]
    video = next(row["video"] for row in rows if row["source"] == "raw/rotated.mp4")
    frame = read_frames(curated / video)[0][0].astype(float)
    # Stored: brighter to the right. Turned clockwise by a quarter: brighter downwards.
    assert frame[-8:].mean() - frame[:8].mean() > 20 > abs(frame[:, -8:].mean() - frame[:, :8].mean()) - 40


@pytest.mark.slow
def test_kills_and_new_files_change_nothing_in_the_result(curated, raw, weights, tmp_path, ray_cluster):
    inputs, dataset = tmp_path / "raw", tmp_path / "set"
    inputs.mkdir()
    names = sorted(raw[1])
    for name in names[: len(names) // 2]:
        if not (raw[0] / name).is_symlink() and "/" not in name:
            shutil.copy2(raw[0] / name, inputs / name)
    shutil.copy2(raw[0] / "bad_sidecar.json", inputs)
    code = f"""
from data.pipeline import Job, curate
from tests.data.test_curate import job
curate(job({str(inputs)!r}, {str(dataset)!r}, {weights!r}), lambda done, total: None)
"""
    process = driver(ray_cluster, code)
    deadline = time.monotonic() + 120
    while not list((dataset / "work").glob("*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list((dataset / "work").glob("*/*")), "killed before anything was committed"
    assert not storage.exists(storage.join(str(dataset), shards.MANIFEST)), "a killed run announces nothing"

    shutil.rmtree(inputs)
    shutil.copytree(raw[0], inputs, symlinks=True)
    before = {p: p.stat().st_mtime_ns for p in (dataset / "work").glob("*/*") if p.suffix != ".part"}
    killed, over = [], threading.Event()

    def kill_a_reader() -> None:
        """As soon as one is at work on a file."""
        while not over.wait(0.02) and not killed:
            known = psutil.process_iter(["cmdline", "name"])  # unlike children(), it bears processes that end
            titles = ((p, " ".join(p.info["cmdline"] or [p.info["name"]])) for p in known)
            killed.extend(p for p, title in titles if "FlatMap(_Read)).submit" in title and _is_ours(p))
            for reader in killed:
                reader.kill()

    watcher = threading.Thread(target=kill_a_reader)
    watcher.start()
    try:
        curate(job(inputs, dataset, weights), lambda done, total: None)
    finally:
        over.set()
        watcher.join()
    assert killed, "no reader was found to kill"
    assert contents(dataset) == contents(curated), "byte for byte what one undisturbed run gives"
    outcomes = [p for p in before if p.name == "outcome.json" and len(list(p.parent.iterdir())) > 1]
    assert all(p.stat().st_mtime_ns == before[p] for p in outcomes), "a finished file was done again"


def _is_ours(process: psutil.Process) -> bool:
    return os.getpid() in [parent.pid for parent in process.parents()]


def deadly_files() -> None:
    """In a worker: scoring a clip of "score.mp4" and reading "read.mp4" end the process as a crashing library does."""
    import data.pipeline as pipeline
    from data.stages.s2_read import Reader

    score, read = pipeline.score_clip, Reader.__call__

    def score_or_die(clip, options):
        if clip.scores["source_width_px"] == 98:
            os.kill(os.getpid(), signal.SIGSEGV)
        score(clip, options)

    def read_or_die(self, source):
        if source.name.endswith("read.mp4"):
            os.kill(os.getpid(), signal.SIGSEGV)
        yield from read(self, source)

    pipeline.score_clip, Reader.__call__ = score_or_die, read_or_die


@pytest.mark.slow
def test_a_file_on_which_workers_die_is_set_aside(tmp_path, ray_cluster):
    """Not retried for ever: failed(stage, error), and its neighbours are done."""
    inputs, dataset = tmp_path / "raw", tmp_path / "set"
    inputs.mkdir()
    for name, width in (("a", 64), ("read", 64), ("score", 98), ("z", 64)):
        write(inputs / f"{name}.mp4", moving(20, width))
    code = f"""
from data.pipeline import curate
from tests.data.test_curate import job
curate(job({str(inputs)!r}, {str(dataset)!r}), lambda done, total: None)
"""
    assert driver(ray_cluster, code, hook="tests.data.test_curate.deadly_files").wait(timeout=300) == 0
    told = {o.source: (o.state, o.stage, o.reason) for o in read_ledger(str(dataset))}
    assert told["raw/read.mp4"] == ("failed", "read", "the worker died 3 times on it")
    assert told["raw/score.mp4"] == ("failed", "score", "all 1 clips failed: the worker died 3 times on it")
    assert told["raw/a.mp4"][0] == told["raw/z.mp4"][0] == "done"


@pytest.mark.slow
def test_object_storage_in_and_out(tmp_path, ray_cluster):
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    clip = write(tmp_path / "a.mp4", moving(20))
    code = f"""
import fsspec
s3 = fsspec.filesystem("s3")
s3.mkdir("raw"); s3.mkdir("sets")
s3.put_file({str(clip)!r}, "raw/in/日本語 a.mp4"); s3.pipe_file("raw/in/empty.mp4", b"")
from data.pipeline import Job, curate
from tests.data.test_curate import job
manifest = curate(job("s3://raw/in", "s3://sets/one"), lambda done, total: None)
assert manifest.counts["done"] == 1 and manifest.counts["failed"] == 1, manifest.counts
from kling import shards
rows = list(shards.read_rows("s3://sets/one", shards.read_manifest("s3://sets/one").shards[0]))
assert rows[0]["source"] == "in/日本語 a.mp4" and s3.exists("sets/one/" + rows[0]["video"])
"""
    try:
        assert driver(ray_cluster, code, **env).wait(timeout=150) == 0
    finally:
        server.stop()


@pytest.mark.slow
def test_two_thousand_tiny_files(tmp_path, ray_cluster):
    inputs = tmp_path / "many"
    inputs.mkdir()
    video = write(tmp_path / "v.mp4", moving(17)).read_bytes()
    for i in range(2000):
        (inputs / f"{i:05d}.mp4").write_bytes(video if i % 200 == 0 else b"" if i % 2 else b"tiny")
    manifest = curate(job(inputs, tmp_path / "set"), lambda done, total: None)
    assert (manifest.counts["files"], manifest.counts["done"], manifest.counts["failed"]) == (2000, 10, 1990)
    assert manifest.counts["rows"] == 10


def test_another_recipe_is_refused(curated, raw):
    with pytest.raises(ConfigError, match="another preset, other weights"):
        curate(job(raw[0], curated), lambda done, total: None)


@pytest.mark.parametrize(
    ("num_workers", "gpus", "pools"), [(1, 0, [1, 1]), (2, 0, [1, 2]), (6, 0, [3, 6]), (6, 1, [3, 1])]
)
def test_every_core_measures_and_every_gpu_encodes(tmp_path, ray_cluster, monkeypatch, num_workers, gpus, pools):
    """Readers and encoders; the local cluster has no GPU, and one encoder waits for it."""
    made, strategy = [], ray_data.ActorPoolStrategy

    def counted(*, size: int):
        made.append(size)
        return strategy(size=size)

    monkeypatch.setattr(ray_data, "ActorPoolStrategy", counted)
    wanted = replace(job(tmp_path, tmp_path / "set"), num_workers=num_workers, gpus_per_encoder=gpus)
    flow(wanted, [Source(name="a", uri="a", fingerprint="")], Tries())
    assert made == pools


def test_counts_that_do_not_add_up_fail_the_run():
    sources = [Source(name=name, uri=name, fingerprint="") for name in ("a", "b")]
    good = [Outcome(source=name, fingerprint="", state="done", num_clips=2, num_rows=2) for name in ("a", "b")]
    assert checked_counts(sources, good, 4)["rows"] == 4
    with pytest.raises(InternalError, match="name each source once"):
        checked_counts(sources, good[:1], 2)
    with pytest.raises(InternalError, match="name each source once"):
        checked_counts(sources, [good[0], good[0], good[1]], 6)
    lost = Outcome(source="b", fingerprint="", state="done", num_clips=3, num_rows=2)
    with pytest.raises(InternalError, match="3 clips were planned"):
        checked_counts(sources, [good[0], lost], 4)
    with pytest.raises(InternalError, match="do not add up"):
        checked_counts(sources, good, 5)


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "data", "curate", *arguments],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **env}, timeout=200, check=False,
    )  # fmt: skip


def test_a_bucket_that_cannot_be_reached_is_one_line(tmp_path):
    """In a process of its own; what else a person gets wrong is in tests/test_bad_input.py."""
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
           "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    done = command("tiny", "--input", "s3://no-such-bucket/raw", "--no-encode", "--out", str(tmp_path / "set"), **env)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 5 and last.startswith("error: ") and "cannot" in last, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "set" / shards.MANIFEST).exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path):
    """A real full disk: a file system of 100 kB in a mount name space of its own."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir(), out.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        write(raw / f"{i}.mp4", rng.integers(0, 255, (20, 64, 64, 3), np.uint8), options={"crf": "1"})
    script = (
        f"mount -t tmpfs -o size=100k none {out} && {sys.executable} -m data curate tiny --input {raw} --out {out} "
    )
    script += f"--no-encode; code=$?; find {out} -name manifest.json -o -name '*.part'; exit $code"
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(out)], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 5 and "no space left" in done.stderr, done.stderr
    assert "manifest.json" not in done.stdout and ".part" not in done.stdout


def test_ledger_says_what_it_cannot_read(tmp_path):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "sources.jsonl").write_text(json.dumps({"source": 1}) + "\n")
    with pytest.raises(Exception, match="ledger cannot be read"):
        read_ledger(str(tmp_path))
