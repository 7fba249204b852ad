"""Hostile input over a real socket, what a test client cannot send: never a 500, never one that holds up the rest."""

import json
import socket
import threading
import time

import pytest
import uvicorn

from serve.addresses import is_public

from .conftest import free_port
from .test_api import Api


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    api, port = Api(tmp_path_factory.mktemp("hostile")), free_port()
    server = uvicorn.Server(uvicorn.Config(api.app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield api, port
    server.should_exit = True
    thread.join()


def _head(api: Api, *lines: str, method: str = "POST /kling/v1.6/generate") -> bytes:
    key = api.key["Authorization"]
    return "\r\n".join([f"{method} HTTP/1.1", "Host: x", f"Authorization: {key}", *lines, "", ""]).encode("latin-1")


def _said(port: int, sent: bytes, *, half_close: bool = False) -> bytes:
    """What the service answers to these bytes before it closes or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)
        except (ConnectionError, TimeoutError):
            return b""


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def _works(api: Api, port: int) -> bool:
    return _status(_said(port, _head(api, method="GET /kling/v1.6/tasks"))) == 200


BODY = json.dumps({"prompt": "a ball"}).encode()
JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("lines", "body", "statuses"),
    [
        ([JSON, f"Content-Length: {10 * 2**20}"], b"{", {413}),
        ([JSON, "Content-Length: -5"], BODY, {0, 400, 413}),
        ([JSON, "Content-Length: 1e3"], BODY, {0, 400, 413}),
        ([JSON, "Transfer-Encoding: chunked"], b"zz\r\n", {0, 400}),
        ([JSON, "X-Large: " + "x" * 200_000, f"Content-Length: {len(BODY)}"], BODY, {0, 400, 431}),
        ([JSON, f"Content-Length: {len(BODY)}", "Idempotency-Key: \xff\xfe"], BODY, {422}),
        (["Content-Type: text/plain", f"Content-Length: {len(BODY)}"], BODY, {415, 422}),
        (["Content-Type: multipart/form-data; boundary=x", f"Content-Length: {len(BODY)}"], BODY, {415, 422}),
        ([JSON, f"Content-Length: {len(BODY)}", "Expect: 100-continue"], BODY, {100, 202}),
    ],
    ids=["10MB", "negative", "float", "chunks", "header", "latin", "text", "form", "expect"],
)
def test_a_strange_request_is_answered_or_closed(served, lines: list[str], body: bytes, statuses: set[int]):
    api, port = served
    assert _status(_said(port, _head(api, *lines) + body)) in statuses
    assert _works(api, port)


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/text2video"])
def test_broken_forms_are_refused(served, path: str):
    api, port = served
    for kind, body in (
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=prompt\r\n\r\na"),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 2000),
        ("application/x-www-form-urlencoded", b"prompt=%ff%00&seed=%f0"),
        ("application/x-www-form-urlencoded", b"&".join(b"a[%d]=1" % i for i in range(2000))),
        ("application/x-www-form-urlencoded", b"prompt=x&camera_control[" + b"a][" * 500 + b"]=1&camera_control[]=2"),
    ):
        head = _head(api, f"Content-Type: {kind}", f"Content-Length: {len(body)}", method=f"POST {path}")
        assert _status(_said(port, head + body)) in (400, 422), (kind, body[:40])


def test_slow_and_half_closed_connections_hold_nobody_up(served):
    api, port = served
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for index, connection in enumerate(held):
        connection.sendall(b"POST /kling" if index % 2 else _head(api, JSON, "Content-Length: 1000") + b"{")
    try:
        began = time.monotonic()
        assert _works(api, port) and time.monotonic() - began < 15
        half = _head(api, JSON, f"Content-Length: {len(BODY)}") + BODY
        assert _status(_said(port, half, half_close=True)) in (0, 202)
        cut = _head(api, JSON, "Content-Length: 1000") + BODY
        assert _status(_said(port, cut, half_close=True)) in (0, 400)
        assert _works(api, port)
    finally:
        for connection in held:
            connection.close()
    queued = api.get("/kling/v1.6/tasks?limit=100").json()["tasks"]
    assert all(task["status"] == "queued" for task in queued), "no half a task"


def test_viewers_who_leave_are_counted_out(served):
    """As many connections as there are places for viewers, all cut off at once: the next viewer finds a place."""
    api, port = served
    task_id = api.post().json()["task_id"]
    for _ in range(2 * api.desk.settings.max_viewers):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(_head(api, method=f"GET /kling/v1.6/events/{task_id}"))
    deadline = time.monotonic() + 60
    while _status(_said(port, _head(api, method=f"GET /kling/v1.6/events/{task_id}"))) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::"],
)  # fmt: skip
def test_addresses_that_lead_inside_are_not_public(address: str):
    assert not is_public(address)


def test_public_addresses_are_public():
    assert is_public("93.184.215.14") and is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
