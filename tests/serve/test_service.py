"""The whole way of a task over HTTP, on a real replica."""

import io
import time

import av
import cv2
import numpy as np
import pytest

from kling.media.video import read_frames, write_mp4
from kling.presets import get_preset
from kling.schema import Task, VideoConfig

from .conftest import Service, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
QUICK = VideoConfig(seed=1, steps=2)


def test_a_task_goes_from_prompt_to_video(service: Service, tmp_path):
    with service.client() as client:
        seen: list[Task] = []
        task = client.generate("a red ball bounces", config=VideoConfig(seed=1, steps=6))
        assert task.status == "queued" and task.queue_position is not None and task.eta_s is not None
        task = client.wait(task.task_id, on_change=seen.append)
        assert task.status == "completed" and task.attempt == 1 and task.progress.fraction == 1.0
        assert task.finished_at is not None and task.started_at is not None
        assert task.created_at <= task.started_at <= task.finished_at
        path = client.download(task.task_id, tmp_path / "x.mp4")
        frames, fps = read_frames(path)
        assert frames.shape == (17, 64, 64, 3) and fps == 8
        assert task.result is not None and task.result.num_bytes == path.stat().st_size
        thumbnail = cv2.imdecode(np.frombuffer(client.content(task.task_id, variant="thumbnail"), np.uint8), 1)
        sheet = cv2.imdecode(np.frombuffer(client.content(task.task_id, variant="spritesheet"), np.uint8), 1)
        assert thumbnail.shape == (64, 64, 3) and sheet.shape == (256, 256, 3)
        assert not [name for name in tmp_path.iterdir() if name.suffix == ".part"]


def test_the_same_seed_gives_the_same_bytes_whatever_runs_beside(service: Service):
    with service.client() as client:
        alone = client.wait(client.generate("a cube", config=VideoConfig(seed=5, steps=3)).task_id)
        crowd = [client.generate("a cube", config=VideoConfig(seed=s, steps=3)) for s in (6, 5, 7)]
        ended = [client.wait(task.task_id) for task in crowd]
        results = [task.result.sha256 for task in ended if task.result]
        assert alone.result is not None and results[1] == alone.result.sha256
        assert len(set(results)) == 3


def test_two_ranks_make_what_one_process_makes(service: Service, tiny_weights, tmp_path):
    from kling.pipeline import Generation, build

    pipeline = build("tiny", weights=tiny_weights)
    write_mp4(tmp_path / "x.mp4", pipeline.generate(Generation(prompt="a cone", seed=9, num_steps=2)), fps=8)
    wanted, _ = read_frames(tmp_path / "x.mp4")
    with service.client() as client:
        task = client.wait(client.generate("a cone", config=VideoConfig(seed=9, steps=2)).task_id)
        made, _ = read_frames(client.content(task.task_id))
    # Sums of floats differ in their last bits, which may turn a level of a pixel, and the codec's choices with it.
    assert np.abs(made.astype(int) - wanted.astype(int)).mean() < 1


@pytest.mark.parametrize("form", ["mp4", "mjpeg", "sse", "raw"])
def test_frames_stream_while_they_are_made_and_again_afterwards(service: Service, form: str):
    with service.client() as client:
        task = client.generate("a ball", config=QUICK)
        live = b"".join(client.stream(task.task_id, format=form))
        assert client.get(task.task_id).status in ("running", "completed")
        client.wait(task.task_id)
        late = b"".join(client.stream(task.task_id, format=form))
    for data in (live, late):
        assert _num_frames(data, form) == 17


def _num_frames(data: bytes, form: str) -> int:
    if form == "mp4":
        with av.open(io.BytesIO(data)) as container:
            return sum(1 for _ in container.decode(video=0))
    if form == "mjpeg":
        return data.count(b"Content-Type: image/jpeg")
    if form == "sse":
        return data.count(b"event: frame\n")
    return len(data) // (64 * 64 * 3)


def test_events_tell_every_stage_and_end_with_the_task(service: Service):
    with service.client() as client:
        task = client.generate("a ball", config=VideoConfig(seed=2, steps=8))
        told = list(client.watch(task.task_id))
    assert told[-1].status == "completed"
    assert len(told) >= 2 and [t.progress.step for t in told] == sorted(t.progress.step for t in told)


def test_cancelling_stops_a_running_task_within_a_step(service: Service):
    with service.client() as client:
        task = client.generate("a ball", config=VideoConfig(seed=3, steps=200))
        until(lambda: client.get(task.task_id).progress.step >= 2, 60)
        client.cancel(task.task_id)
        ended = until(lambda: (t := client.get(task.task_id)).done and t, 30)
        assert ended.status == "cancelled" and ended.progress.step < 150 and ended.result is None
        after = client.wait(client.generate("a ball", config=QUICK).task_id)
        assert after.status == "completed", "the replica works on after a cancel"


def test_cancelling_a_waiting_task_and_deleting_ended_ones(service: Service):
    with service.client() as client:
        busy = client.generate("a ball", config=VideoConfig(seed=3, steps=60))
        waiting = client.generate("a ball", config=QUICK)
        assert client.cancel(waiting.task_id).status == "cancelled"
        assert client.cancel(waiting.task_id).status == "cancelled", "cancelling twice is the same"
        client.cancel(busy.task_id)
        client.wait(busy.task_id)
        for task_id in (busy.task_id, waiting.task_id):
            client.delete(task_id)
            client.delete(task_id)
            assert task_id not in {task.task_id for task in client.list(limit=100).tasks}


def test_what_is_smaller_than_asked_is_explained(service: Service):
    with service.client() as client:
        task = client.generate("a ball", config=VideoConfig(resolution="70x60", duration=1.9, steps=1))
        assert {change.field for change in task.adjustments} == {"resolution", "duration"}
        preset = get_preset("tiny")
        unit = preset.vae.stride_px * preset.dit.patch[2]
        assert (task.granted.width_px, task.granted.height_px) == tuple(round(side / unit) * unit for side in (70, 60))
        huge = client.generate("a ball", config=VideoConfig(resolution="1920x1080", steps=50, duration=10))
        assert any("would take" in c.reason or "memory" in c.reason for c in huge.adjustments)
        client.cancel(huge.task_id)
    with service.http() as http:
        config = {"resolution": "1920x1080", "duration": 10, "allow_downgrade": False, "steps": 50}
        answer = http.post("/generate", json={"prompt": "a ball", "config": config})
        assert answer.status_code == 409 and answer.json()["error"]["code"] == "does_not_fit"


def test_live_and_ready_need_no_key_and_other_routes_do(service: Service):
    import httpx

    assert httpx.get(f"{service.url}/live").json()["status"] == "live"
    assert httpx.get(f"{service.url}/ready").json()["status"] == "ready"
    answer = httpx.get(f"{service.url}/kling/v1.6/tasks")
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    with service.http(service.new_key("read")) as reader:
        assert reader.get("/tasks").status_code == 200
        assert reader.post("/generate", json={"prompt": "x"}).status_code == 403


def test_realtime_frames_leave_while_later_chunks_are_made(service: Service):
    """The first frame is in a viewer's hands before the ranks have finished."""
    with service.client() as client:
        task = client.generate("a ball", config=VideoConfig(seed=4, steps=2, duration=4, realtime=True))
        first = None
        for _ in client.stream(task.task_id, format="raw"):
            first = first or client.get(task.task_id)
        done = client.wait(task.task_id)
    assert first is not None and first.status == "running" and first.progress.step < first.progress.num_steps
    assert done.result is not None and done.result.num_frames == 33
    assert [chunk.num_frames for chunk in done.result.pace] == [1] + [4] * 8
    assert done.plan_url is not None
    with service.http() as http:
        assert "ball" in http.get(f"/plan/{task.task_id}").json()["objects"][0]["shape"]


def test_who_waits_for_the_end_is_told_at_once(service: Service):
    with service.client() as client, service.http() as http:
        task = client.generate("a ball", config=VideoConfig(seed=2, steps=40))
        answer = http.get(f"/status/{task.task_id}", params={"wait_s": 0.05}).json()
        assert answer["status"] in ("queued", "running"), "not so long"
        answer = http.get(f"/status/{task.task_id}", params={"wait_s": 30}).json()
        assert answer["status"] == "completed" and time.time() - answer["finished_at"] < 1
        assert http.get(f"/status/{task.task_id}", params={"wait_s": 30}).json()["status"] == "completed"
        for wrong in (-1, 31, "nan", "soon"):
            assert http.get(f"/status/{task.task_id}", params={"wait_s": wrong}).status_code == 422
