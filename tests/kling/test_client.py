"""The client against the real HTTP application of this process, with faults put between them."""

import asyncio
import json
import random
import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling.client import batch
from kling.client.client import AsyncClient, Client, RefusedError
from kling.client.retries import RetryPolicy, Tries
from kling.errors import ConfigError, InputError, ServiceError
from kling.schema import VideoConfig
from serve.media import Media
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
