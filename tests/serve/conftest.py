"""One service for all serving tests of a session: seeded tiny weights, two ranks, on the session's own cluster."""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from kling.client.client import Client
from kling.client.retries import RetryPolicy
from kling.schema import API_PREFIX
from serve.app import ServiceSettings
from serve.keys import KeyStore, Limits, service_secret
from serve.tasks import TaskStore

MAX_WAITING = 24  # tasks in the queue


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running service and the ways into it."""

    url: str
    state: str
    key: str
    store: TaskStore
    keys: KeyStore

    def client(self, **options) -> Client:
        return Client(self.url, self.key, retry=RetryPolicy(max_tries=60, max_pause_s=2.0), **options)

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url + API_PREFIX, headers=headers, timeout=60)

    def new_key(self, *scopes: str, **limits) -> str:
        made = self.keys.create(name="test", scopes=frozenset(scopes or ("generate", "read")), limits=Limits(**limits))
        return made.bearer

    def pids(self) -> dict:
        """{"leader": pid, "ranks": [pid, pid], "decoder": [pid]} of the replica that is ready."""
        return until(lambda: next(filter(_all_alive, self._told()), None), 120)

    def _told(self) -> list[dict]:
        return [json.loads(w["pids"]) for w in self.store.workers(within_s=5) if w["status"] == "ready"]


def _all_alive(pids: dict) -> bool:
    processes = [pids["leader"], *pids["ranks"], *pids["decoder"]]
    return bool(pids["ranks"] and pids["decoder"]) and all(map(psutil.pid_exists, processes))


def until(look, seconds: float):
    """What ``look`` returns once it is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def service(ray_cluster, tiny_weights, tmp_path_factory):
    """One replica of two ranks behind one ingress."""
    from ray import serve as ray_serve

    from serve.app import start

    state, port = str(tmp_path_factory.mktemp("state")), free_port()
    settings = ServiceSettings(
        preset="tiny", state=state, checkpoint=tiny_weights, max_waiting=MAX_WAITING, silent_s=8.0
    )
    start(settings, host="127.0.0.1", port=port)
    store = TaskStore(settings.database_url)
    keys = KeyStore(store.engine, service_secret(state))
    bearer = keys.create(name="tests", scopes=frozenset({"generate", "read"}), limits=Limits()).bearer
    yield Service(url=f"http://127.0.0.1:{port}", state=state, key=bearer, store=store, keys=keys)
    ray_serve.shutdown()


ROOT = Path(__file__).parent.parent.parent
