"""The client against the real HTTP application of this process, with faults put between them."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kling.client import batch
from kling.client.client import AsyncClient, Client, RefusedError
from kling.client.retries import RetryPolicy, Tries
from kling.errors import ConfigError, InputError, ServiceError
from kling.schema import VideoConfig
from serve.media import Media
from tests.serve.conftest import free_port
from tests.serve.test_api import Api

QUICK = RetryPolicy(base_s=0.001, max_pause_s=0.01, max_tries=8)


class Faulty(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The application, behind a network that loses requests and answers as the list says.

    Each entry is a status to answer instead, "lost" (the request never arrives), "deaf" (it arrives and is carried out,
    but the answer is lost) or "ok".
    """

    def __init__(self, api: Api, faults: list):
        self.api, self.faults, self.seen = api, list(faults), 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen += 1
        fault = self.faults.pop(0) if self.faults else "ok"
        if isinstance(fault, int):
            return httpx.Response(fault, headers={"retry-after": "0"}, json={"error": {"code": "x", "message": "y"}})
        if fault == "lost":
            raise httpx.ConnectError("lost")
        headers = {k: v for k, v in request.headers.items() if k not in ("host", "content-length")}
        made = self.api.http.request(
            request.method, request.url.raw_path.decode(), headers=headers, content=request.read()
        )
        if fault == "deaf":
            raise httpx.ReadTimeout("no answer")
        return httpx.Response(made.status_code, headers=dict(made.headers), content=made.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await asyncio.to_thread(self.handle_request, request)


@pytest.fixture
def api(tmp_path) -> Api:
    (tmp_path / "state").mkdir()
    return Api(tmp_path / "state")


def connect(api: Api, faults: list, **options) -> Client:
    key = api.key["Authorization"].removeprefix("Bearer ")
    return Client("http://kling.test", key, transport=Faulty(api, faults), retry=QUICK, **options)


def aconnect(api: Api, faults: list) -> AsyncClient:
    key = api.key["Authorization"].removeprefix("Bearer ")
    return AsyncClient("http://kling.test", key, transport=Faulty(api, faults), retry=QUICK)


def num_tasks(api: Api) -> int:
    return len(api.get("/kling/v1.6/tasks?limit=100").json()["tasks"])


@pytest.mark.parametrize(
    "faults",
    [[], ["lost"], ["deaf"], ["deaf", "deaf", 500, "lost", 429], [503, 502, 500], [429, 429, "deaf"], ["lost"] * 6],
)
def test_no_fault_makes_a_second_video(api: Api, faults: list):
    with connect(api, faults) as client:
        task = client.generate("a ball")
        assert num_tasks(api) == 1 and client.get(task.task_id).task_id == task.task_id


@pytest.mark.parametrize("faults", [["deaf", 500, "lost", 429], ["deaf"] * 5])
async def test_no_fault_makes_a_second_video_with_asyncio(api: Api, faults: list):
    async with aconnect(api, faults) as client:
        task = await client.generate("a ball")
        assert (await client.get(task.task_id)).status == "queued"
    assert num_tasks(api) == 1


def test_what_cannot_get_better_is_not_tried_again(api: Api):
    for status in (400, 401, 403, 404, 409, 422):
        with connect(api, [status] * 3) as client, pytest.raises(RefusedError) as caught:
            client.get("task_x")
        assert caught.value.status == status and caught.value.code == "x"
    transport = Faulty(api, ["lost"] * 99)
    client = Client("http://kling.test", "k", transport=transport, retry=QUICK)
    with pytest.raises(ServiceError, match="no answer"):
        client.get("task_x")
    assert transport.seen == QUICK.max_tries


@given(st.integers(0, 2**32), st.floats(0, 300))
def test_pauses_follow_the_policy(seed: int, retry_after: float):
    policy = RetryPolicy(max_tries=6)
    crowded = Tries(policy=policy, rng=random.Random(seed))
    broken = Tries(policy=policy, rng=random.Random(seed))
    late = Tries(policy=policy)
    for n in range(1, 6):
        pause = crowded.after_answer(429, {"retry-after": str(retry_after)})
        assert pause is not None and retry_after <= pause <= max(retry_after, policy.base_s * 2**n)
        assert broken.after_answer(503, {}) == policy.base_s * n
        before = late.timeout_s
        assert late.after_failure(httpx.ReadTimeout("")) == 0.0
        assert late.timeout_s == min(policy.max_timeout_s, 2 * before)
    assert crowded.after_answer(429, {}) is None and broken.after_answer(500, {}) is None
    assert Tries(policy=policy).after_answer(503, {"x-should-retry": "false"}) is None


def test_retry_after_is_read_in_both_forms_and_never_waited_for_without_end():
    def in_s(seconds: float) -> str:
        return formatdate(time.time() + seconds, usegmt=True)

    tries = Tries(policy=RetryPolicy(base_s=0.01))
    pause = tries.after_answer(429, {"retry-after": in_s(30)})
    assert pause is not None and 28 < pause <= 30
    assert tries.after_answer(503, {"retry-after": in_s(-30)}) == tries.policy.base_s * 2, "a date that has passed"
    for broken in ("soon", "nan", "inf", "Thu, 99 Foo 2026 00:00:00 GMT", ""):
        assert Tries(policy=RetryPolicy(base_s=0.01)).after_answer(503, {"retry-after": broken}) == 0.01
    for later in ("86400", in_s(86_400)):
        assert Tries(policy=RetryPolicy()).after_answer(429, {"retry-after": later}) is None, (
            "tomorrow is told, not slept"
        )


def test_a_refusal_says_when_to_come_back(api: Api):
    api.key = api.new_key(month_s=0.5)
    with connect(api, []) as client, pytest.raises(RefusedError) as caught:
        client.generate("a ball")
    assert caught.value.status == 429 and caught.value.code == "quota_exceeded" and caught.value.retry_after_s >= 1


def test_every_field_of_a_request_can_be_sent(api: Api, tmp_path):
    picture = tmp_path / "first.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    with connect(api, []) as client:
        task = client.generate("a ball", first_frame=picture, last_frame=picture.read_bytes(), external_task_id="mine")
        row = api.desk.store.get(task.task_id)
        assert row is not None and task.external_task_id == "mine"
        order = json.loads(row["order"])
        assert order["first_frame"] and order["first_frame"] == order["last_frame"]
        with pytest.raises(InputError, match="first_frame"):
            client.generate("a ball", first_frame=tmp_path / "none.png")


def _events(*states: str) -> bytes:
    granted = {"width_px": 64, "height_px": 64, "num_frames": 17, "fps": 8, "num_steps": 2, "guidance": 1.0, "seed": 0}
    task = {"task_id": "t", "prompt": "x", "created_at": 1.0, "granted": granted}
    return b"".join(b"event: progress\ndata: %s\n\n" % json.dumps({**task, "status": s}).encode() for s in states)


def test_watching_goes_on_after_a_lost_connection():
    """The service stops in the middle, is away, comes back: every change is told once, and the end is reached."""

    class Cut(httpx.SyncByteStream):
        def __iter__(self):
            yield _events("queued", "running")
            raise httpx.ReadError("cut")

    cut, silent = httpx.Response(200, stream=Cut()), httpx.Response(200, content=_events("running"))
    last = httpx.Response(200, content=_events("completed"))
    given: list = [cut, httpx.ConnectError("away"), httpx.Response(503), silent, last]

    def answer(_: httpx.Request) -> httpx.Response:
        now = given.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    client = Client("http://x", "k", transport=httpx.MockTransport(answer), retry=QUICK)
    assert [task.status for task in client.watch("t")] == ["queued", "running", "completed"] and not given
    given = [httpx.ConnectError("away")] * 99
    with pytest.raises(ServiceError, match="no answer"):
        list(client.watch("t"))
    with pytest.raises(ServiceError, match="no answer"):
        list(client.stream("t"))


def test_a_bad_request_is_found_before_it_is_sent(api: Api):
    with connect(api, []) as client:
        with pytest.raises(InputError, match="prompt"):
            client.generate("")
        with pytest.raises(InputError, match="external_task_id"):
            client.generate("x", external_task_id="no spaces allowed")
    for key in ("", "ключ"):
        with pytest.raises(InputError):
            Client("http://x", key)
    with pytest.raises(ConfigError):
        RetryPolicy(max_tries=0)


def test_an_id_is_one_path_segment_whatever_it_holds(api: Api):
    with connect(api, []) as client:
        for task_id in ("../../live", "a/b", "", "?", "#", "%2e%2e"):
            with pytest.raises(RefusedError) as caught:
                client.get(task_id)
            assert caught.value.status == 404


def test_the_client_loads_no_torch():
    code = "import sys, kling.client.client, kling.client.commands, kling.client.batch;"
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'av', 'cv2', 'diffusers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- batch ------------------------------------------------------------------------------


def _work(api: Api) -> None:
    """Be the worker for everything that waits."""
    while (claim := api.desk.store.claim("w")) is not None:
        video = f"video of {claim.id}".encode()
        Media(api.desk.settings.state, claim.id).save_video(video)
        api.desk.store.complete(claim, {"num_bytes": len(video), "sha256": "0", "num_frames": 17})


async def _run(api: Api, rows: list, out, faults=(), kill_after: int | None = None) -> dict | None:
    """A batch run beside a worker; with ``kill_after`` it is cancelled as soon as so many rows are done."""

    async def worker():
        while True:
            await asyncio.to_thread(_work, api)
            await asyncio.sleep(0.01)

    busy = asyncio.create_task(worker())
    async with aconnect(api, list(faults)) as client:
        run = asyncio.create_task(batch.run(client, rows, out, concurrency=3))
        while kill_after is not None and not run.done():
            results = out / "results.jsonl"
            if results.exists() and results.read_bytes().count(b"\n") >= kill_after:
                run.cancel()
                break
            await asyncio.sleep(0.01)
        result = await asyncio.gather(run, return_exceptions=True)
    busy.cancel()
    return result[0] if isinstance(result[0], dict) else None


@pytest.mark.parametrize("kill_after", [0, 1, 4])
async def test_a_batch_killed_and_run_again_loses_and_doubles_nothing(api: Api, tmp_path, kill_after: int):
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    file.write_text("\n".join(json.dumps({"prompt": f"ball {i}", "config": {"seed": i}}) for i in range(8)))
    rows = batch.read_rows(file)
    await _run(api, rows, out, faults=["deaf", "lost", 503], kill_after=kill_after)
    with (out / "results.jsonl").open("a") as ledger:
        ledger.write('{"key": "cut sho')  # the line that a crash cut
    counts = await _run(api, rows, out)
    assert counts == {"completed": 8, "failed": 0}
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(8)), "each row once"
    assert num_tasks(api) == 8, "and the service made each once"
    for line in lines:
        assert (out / "videos" / f"{line['index']:06d}.mp4").read_bytes() == f"video of {line['task_id']}".encode()
    assert await _run(api, rows, out) == counts, "a finished batch asks for nothing"


def test_a_batch_survives_sigkill_at_any_moment(api: Api, tmp_path):
    """The real command against the real application on a port, killed again and again."""
    port, out, file = free_port(), tmp_path / "out", tmp_path / "rows.csv"
    file.write_text("prompt,seed,camera_control\n" + "".join(f"ball {i},{i},orbit left\n" for i in range(6)))
    server = uvicorn.Server(uvicorn.Config(api.app, host="127.0.0.1", port=port, log_level="error"))
    stop = threading.Event()

    def work():
        while not stop.wait(0.5):  # three rounds at least: the first kill comes before
            _work(api)

    threads = [threading.Thread(target=server.run), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    given = {**os.environ, "KLING_API_KEY": api.key["Authorization"].removeprefix("Bearer ")}
    command = [sys.executable, "-m", "kling", "batch", str(file), "--out", str(out), "--concurrency", "2",
               "--url", f"http://127.0.0.1:{port}"]  # fmt: skip
    rng, kills, code = random.Random(7), 0, None
    while code is None:
        run = subprocess.Popen(command, env=given, stdout=subprocess.DEVNULL)
        try:
            started = time.monotonic()
            while not (out / "lock").exists() and time.monotonic() < started + 60:
                time.sleep(0.02)
            code = run.wait(timeout=rng.uniform(0.1, 1.5) if kills < 4 else 120)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
    stop.set()
    server.should_exit = True
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert code == 0 and kills >= 1 and sorted(line["index"] for line in lines) == list(range(6))
    assert num_tasks(api) == 6 and {line["status"] for line in lines} == {"completed"}
    for line in lines:
        assert (out / "videos" / f"{line['index']:06d}.mp4").read_bytes() == f"video of {line['task_id']}".encode()


async def test_a_batch_runs_once_at_a_time(api: Api, tmp_path):
    (tmp_path / "x.csv").write_text("prompt\na\n")
    rows = batch.read_rows(tmp_path / "x.csv")
    async with aconnect(api, []) as client:
        with batch._alone(tmp_path / "out"), pytest.raises(InputError, match="being run"):
            await batch.run(client, rows, tmp_path / "out", concurrency=1)
    assert (await _run(api, rows, tmp_path / "out")) == {"completed": 1, "failed": 0}


async def test_a_batch_sends_whole_rows_with_their_pictures(api: Api, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "cat.png")
    row = {"prompt": "a cat", "first_frame": "cat.png", "config": {"camera_control": {"type": "static"}}}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    await _run(api, batch.read_rows(tmp_path / "x.jsonl"), tmp_path / "out")
    [task] = api.get("/kling/v1.6/tasks").json()["tasks"]
    made = api.desk.store.get(task["task_id"])
    assert made is not None and json.loads(made["order"])["first_frame"]
    (tmp_path / "x.jsonl").write_text(json.dumps({**row, "first_frame": "dog.png"}))
    with pytest.raises(InputError, match=r"dog\.png"):
        batch.read_rows(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.jsonl", "", "no rows"),
        ("x.jsonl", '{"prompt": "a"}\n{"prompt": 1}', ":2"),
        ("x.jsonl", '{"prompt": "a"}\n{broken', ":2"),
        ("x.jsonl", '{"prompt": "a", "config": {"sede": 1}}', "sede"),
        ("x.csv", "prompt,seed\na,minus\n", "seed"),
        ("x.csv", "promt\na\n", "prompt: Field required"),
    ],
)
def test_a_batch_with_a_bad_row_says_which(tmp_path, name: str, text: str, says: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        batch.read_rows(tmp_path / name)


def test_csv_rows_are_requests(tmp_path):
    (tmp_path / "x.csv").write_text('prompt,seed,resolution\n"a ball, red",3,64x64\na cube,,\n')
    rows = batch.read_rows(tmp_path / "x.csv")
    assert rows[0].request.prompt == "a ball, red" and rows[0].request.config == VideoConfig(seed=3, resolution="64x64")
    assert rows[1].request.config == VideoConfig()
