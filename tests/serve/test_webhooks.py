"""Callbacks: signed, told again until they are heard, never to a private place."""

import asyncio
import contextlib
import io
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest

from kling.media.video import write_mp4
from serve.media import Media
from serve.tasks import TASKS, TaskStore
from serve.webhooks import Courier, signature, webhook_secret

from .test_api import Api
from .test_tasks import a_task

ORDER = json.dumps(
    {"prompt": "x", "negative_prompt": "", "width_px": 64, "height_px": 64, "num_frames": 17, "fps": 8,
     "num_steps": 1, "guidance": 1.0, "seed": 0}
)  # fmt: skip


@pytest.fixture
def receiver():
    """A server of this machine that fails as often as it is told to."""

    class Handler(BaseHTTPRequestHandler):
        heard: ClassVar[list] = []
        failures = 0

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            Handler.heard.append((dict(self.headers), body))
            failing = Handler.failures > 0
            Handler.failures -= failing
            self.send_response(500 if failing else 204)
            self.end_headers()

        def log_message(self, *_):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Handler, f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()


def _ended(store: TaskStore, url: str) -> str:
    with store.engine.begin() as connection:
        task = a_task(owner="k1", order=ORDER, request='{"prompt": "x"}', callback_url=url)
        task_id = store.add(connection, task)
    claim = store.claim("w")
    assert claim is not None
    store.fail(claim, code="internal", message="no")
    return task_id


def _due_now(store: TaskStore) -> None:
    with store.engine.begin() as connection:
        connection.execute(TASKS.update().values(callback_at=0.0))


def test_a_callback_is_signed_and_repeated_until_it_is_heard(tmp_path, receiver):
    handler, url = receiver
    handler.failures = 2
    store = TaskStore(f"sqlite:///{tmp_path}/t.db")
    task_id = _ended(store, url)
    courier = Courier(store, b"s" * 64, public_only=False)
    for _ in range(4):
        _due_now(store)
        asyncio.run(courier.deliver_one())
    assert len(handler.heard) == 3, "two failures, then heard, then silence"
    headers, body = handler.heard[-1]
    lower = {name.lower(): value for name, value in headers.items()}
    wanted = signature(webhook_secret(b"s" * 64, "k1"), lower["webhook-id"], int(lower["webhook-timestamp"]), body)
    assert lower["webhook-signature"] == wanted
    assert len({h.get("webhook-id") or h.get("Webhook-Id") for h, _ in handler.heard}) == 1
    told = json.loads(body)
    assert told["type"] == "task.failed" and told["data"]["task_id"] == task_id


def test_the_official_form_is_told_in_its_form_when_a_task_starts_and_ends(tmp_path, receiver):
    handler, url = receiver
    handler.heard.clear()
    api = Api(tmp_path)
    store, courier = api.desk.store, Courier(api.desk.store, api.desk.secret, public_only=False)

    def asked(path: str, **body) -> str:
        given = {"prompt": "a ball", "callback_url": "http://93.184.216.34/hook", **body}
        task_id = api.post(f"/v1/videos/{path}", json=given).json()["data"]["task_id"]
        with store.engine.begin() as connection:  # the receiver is of this machine, where callbacks may not go
            connection.execute(TASKS.update().where(TASKS.c.id == task_id).values(callback_url=url))
        return task_id

    def told() -> dict:
        _due_now(store)
        assert asyncio.run(courier.deliver_one())
        headers, body = handler.heard[-1]
        lower = {name.lower(): value for name, value in headers.items()}
        secret, message_id = webhook_secret(api.desk.secret, owner), lower["webhook-id"]
        signed = signature(secret, message_id, int(lower["webhook-timestamp"]), body)
        assert lower["webhook-signature"] == signed
        return json.loads(body)

    def silent() -> bool:
        _due_now(store)
        return not asyncio.run(courier.deliver_one())

    first = asked("text2video", external_task_id="mine")
    owner = store.get(first)["owner"]  # type: ignore[index]
    assert silent(), "the answer said that it is submitted"
    claim = store.claim("w")
    assert claim is not None
    handler.failures = 1  # the receiver misses it once
    assert told() == told() and silent(), "told again until it is heard, then no more"
    assert json.loads(handler.heard[-1][1])["task_status"] == "processing"
    store.complete(claim, {"num_bytes": 3, "sha256": "0", "num_frames": 41})
    file = io.BytesIO()
    write_mp4(file, np.zeros((17, 64, 64, 3), np.uint8), fps=8)
    Media(api.desk.settings.state, first).save_video(file.getvalue())
    done = told()
    assert (done["task_id"], done["task_status"], done["task_info"]) == (first, "succeed", {"external_task_id": "mine"})
    assert done["created_at"] <= done["updated_at"] and done["created_at"] > 1e12
    [video] = done["task_result"]["videos"]
    assert api.http.get(video["url"]).content == file.getvalue(), "whoever is told can open it without a key"
    assert len({h.get("webhook-id") or h.get("Webhook-Id") for h, _ in handler.heard}) == 2 and silent()

    more = asked("video-extend", video_id=first)
    claim = store.claim("w")
    assert claim is not None and claim.id == more
    store.fail(claim, code="internal", message="it broke")
    failed = told()
    assert (failed["task_status"], failed["task_status_msg"]) == ("failed", "it broke")
    assert failed["task_info"]["parent_video"]["id"] == first and "task_result" not in failed and silent()


def test_a_callback_waits_for_the_end_of_its_task(tmp_path, receiver):
    handler, url = receiver
    handler.heard.clear()
    store = TaskStore(f"sqlite:///{tmp_path}/t.db")
    with store.engine.begin() as connection:
        store.add(connection, a_task(owner="k1", order=ORDER, request='{"prompt": "x"}', callback_url=url))
    assert not asyncio.run(Courier(store, b"s", public_only=False).deliver_one()) and not handler.heard


def test_a_receiver_that_never_ends_its_answer_holds_nobody_up(tmp_path, receiver, monkeypatch):
    """One drips a header for ever, one redirects: neither keeps the third from being told at once."""
    handler, url = receiver
    handler.heard.clear()
    monkeypatch.setattr("serve.webhooks._TIMEOUT_S", 1.0)
    redirect = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % url.encode()
    store = TaskStore(f"sqlite:///{tmp_path}/t.db")
    with socket.create_server(("127.0.0.1", 0)) as slow, socket.create_server(("127.0.0.1", 0)) as elsewhere:

        def drip():
            with contextlib.suppress(OSError):
                connection = slow.accept()[0]
                while True:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n" if drip.__dict__.setdefault("n", 1) == 1 else b"X: y\r\n")
                    drip.__dict__["n"] += 1
                    time.sleep(0.1)

        def send_away():
            connection = elsewhere.accept()[0]
            connection.recv(65536)
            connection.sendall(redirect)

        for server in (drip, send_away):
            threading.Thread(target=server, daemon=True).start()
        ids = [_ended(store, f"http://127.0.0.1:{s.getsockname()[1]}/") for s in (slow, elsewhere)]
        heard_id = _ended(store, url)

        async def run():
            courier = asyncio.create_task(Courier(store, b"s" * 64, public_only=False).run())
            deadline = time.monotonic() + 30
            while store.get(ids[0])["callback_state"] == "due" and store.get(ids[0])["callback_at"] < 1 + time.time():  # type: ignore[index]
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            await asyncio.sleep(2.0)
            courier.cancel()

        asyncio.run(run())
    states = [store.get(task_id)["callback_state"] for task_id in (*ids, heard_id)]  # type: ignore[index]
    assert states == ["due", "due", "done"] and len(handler.heard) == 1, "the redirect was not followed"


def test_a_name_that_leads_to_a_private_address_is_not_called(tmp_path, receiver):
    handler, url = receiver
    handler.heard.clear()
    store = TaskStore(f"sqlite:///{tmp_path}/t.db")
    _ended(store, url.replace("127.0.0.1", "localhost"))
    assert asyncio.run(Courier(store, b"s").deliver_one())
    assert not handler.heard


def test_the_signature_is_the_one_of_the_specification():
    # The example of standardwebhooks.com's reference libraries.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
