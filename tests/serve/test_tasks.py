"""The task store's promises, on SQLite and (where its programs are installed) PostgreSQL."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kling.errors import StorageError
from serve.endings import Endings
from serve.lookout import Lookout
from serve.tasks import MAX_CRASHES, Claim, LostLeaseError, NewTask, TaskStore, new_id

from .conftest import free_port


def a_task(owner="k", **given) -> NewTask:
    values = {
        "request": "{}", "order": "{}", "adjustments": "[]", "predicted_s": 1.0, "predicted_bytes": 1,
        "priority": 5, "deadline_s": None, "fingerprint": "f",
    }  # fmt: skip
    return NewTask(id=new_id(), owner=owner, **{**values, **given})


def add(store: TaskStore, **given) -> str:
    with store.engine.begin() as connection:
        return store.add(connection, a_task(**given))


def claim(store: TaskStore, worker="w", **options) -> Claim:
    made = store.claim(worker, **options)
    assert made is not None
    return made


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of our own on a free port; skipped where it is not installed."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    pytest.importorskip("psycopg")
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="kling-pg-")), free_port()
    folder.chmod(0o777)  # PostgreSQL refuses to run as root
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    data = folder / "data"
    subprocess.run([*as_user, programs / "initdb", "-D", data, "-A", "trust", "-U", "kling"], check=True,
                   capture_output=True)  # fmt: skip
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*as_user, programs / "postgres", "-D", data, *options.split()], stderr=log)
    url = f"postgresql+psycopg://kling@127.0.0.1:{port}/postgres"
    deadline = time.monotonic() + 60
    while subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode:
        assert time.monotonic() < deadline and server.poll() is None
        time.sleep(0.2)
    yield url
    server.send_signal(signal.SIGINT)  # a fast end: on SIGTERM it waits for every connection of a pool
    server.wait(30)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path) -> TaskStore:
    if request.param == "sqlite":
        return TaskStore(f"sqlite:///{tmp_path}/tasks.db")
    store = TaskStore(request.getfixturevalue("postgres"))
    with store.engine.begin() as connection:
        from serve.tasks import TASKS

        connection.execute(TASKS.delete())
    return store


def test_a_task_lives_queued_running_completed(store: TaskStore):
    task_id = add(store)
    held = claim(store)
    assert (held.id, held.attempt, held.fence) == (task_id, 1, 1)
    assert store.claim("other") is None
    store.renew(held, reached={"stage": "denoise", "step": 3, "num_steps": 9})
    assert not store.renew(held)
    store.complete(held, {"num_bytes": 1, "sha256": "x", "num_frames": 1})
    row = store.get(task_id)
    assert row is not None and row["state"] == "completed" and row["step"] == 3
    for late in (lambda: store.fail(held, code="x", message="x"), lambda: store.cancelled(held),
                 lambda: store.complete(held, {}), lambda: store.renew(held)):  # fmt: skip
        with pytest.raises(LostLeaseError):
            late()
    store.cancel(task_id)
    assert (store.get(task_id) or {})["state"] == "completed", "an ended task stays as it is"


def test_workers_and_waiters_are_told_what_concerns_them(store: TaskStore):
    ids = [add(store) for _ in range(3)]
    assert store.ended(ids) == []
    held = claim(store)
    assert not store.unwanted(held)
    store.cancel(held.id)
    assert store.unwanted(held) and store.renew(held)
    store.cancelled(held)
    assert store.ended([*ids, "nobody"]) == [held.id, "nobody"]
    slow = claim(store, "slow", lease_s=-1)
    claim(store, "other")
    assert store.unwanted(slow), "another worker has it"


def test_all_who_wait_are_told_by_one_query_at_a_time(store: TaskStore):
    ids = [add(store) for _ in range(4)]
    asked = []

    async def scene() -> list[float]:
        endings, began = Endings(store), time.monotonic()
        real, store.ended = store.ended, lambda ids: asked.append(sorted(ids)) or real(ids)  # type: ignore[method-assign]

        async def told(task_id: str, seconds: float = 20.0) -> float:
            await endings.wait(task_id, seconds)
            return time.monotonic() - began

        waiting = [asyncio.create_task(told(task_id)) for task_id in [*ids, ids[0]]]
        late = await told(ids[1], 0.2)
        assert late >= 0.2 and not any(task.done() for task in waiting)
        assert asked[-1] == sorted(set(ids))  # here: a query may fall between two of the cancellations below
        for task_id in ids:
            store.cancel(task_id)
        return await asyncio.gather(*waiting)

    assert max(asyncio.run(scene())) < 10


def test_a_lookout_returns_soon_after_a_change_and_not_before(tmp_path: Path):
    store = TaskStore(f"sqlite:///{tmp_path}/tasks.db")
    task_id = add(store)

    async def scene() -> tuple[float, float, bool]:
        lookout = Lookout(store)
        await lookout.change(20.0)  # it has not looked yet
        began = time.monotonic()
        await lookout.change(0.3)
        quiet_s = time.monotonic() - began
        looking = asyncio.create_task(lookout.change(20.0))
        await asyncio.sleep(0.1)
        early = looking.done()
        store.cancel(task_id)
        began = time.monotonic()
        await looking
        return quiet_s, time.monotonic() - began, early

    quiet_s, told_s, early = asyncio.run(scene())
    assert quiet_s >= 0.3 and not early and told_s < 10


def test_an_abandoned_task_goes_to_another_and_the_first_is_shut_out(store: TaskStore):
    add(store)
    first = claim(store, "first", lease_s=-1)
    second = claim(store, "second")
    assert second.id == first.id and second.attempt == 2 and second.fence > first.fence
    with pytest.raises(LostLeaseError):
        store.complete(first, {})
    store.complete(second, {})


def test_a_task_that_takes_its_workers_with_it_is_given_up(store: TaskStore):
    task_id = add(store)
    for _ in range(MAX_CRASHES):
        claim(store, lease_s=-1)
    assert store.claim("w") is None
    row = store.get(task_id)
    assert row is not None and (row["state"], row["error_code"]) == ("failed", "engine_lost")


def test_drains_do_not_count_as_crashes(store: TaskStore):
    add(store)
    for attempt in range(1, MAX_CRASHES + 4):
        held = claim(store)
        assert held.attempt == attempt
        store.release(held, crashed=False)
    store.complete(claim(store), {})


def test_order_is_priority_then_deadline_then_fairness_then_age(store: TaskStore):
    add(store, owner="a", external_id="a1")
    add(store, owner="a", external_id="a2")
    add(store, owner="a", external_id="a3")
    add(store, owner="b", external_id="b1")
    add(store, owner="a", external_id="soon", deadline_s=60)
    add(store, owner="a", external_id="first", priority=9)
    names = []
    while (held := store.claim("w")) is not None:
        names.append((store.get(held.id) or {})["external_id"])
        store.complete(held, {})
    assert names == ["first", "soon", "b1", "a1", "a2", "a3"]


def test_a_passed_deadline_fails_the_task_instead_of_running_it(store: TaskStore):
    late, good = add(store, deadline_s=-1), add(store)
    assert claim(store).id == good
    assert (store.get(late) or {})["error_code"] == "deadline"


def test_places_in_the_queue_add_up(store: TaskStore):
    ids = [add(store, predicted_s=float(i + 1)) for i in range(3)]
    rows = [store.get(task_id) for task_id in ids]
    assert [store.ahead(row) for row in rows if row] == [(0, 0.0), (1, 1.0), (2, 3.0)]
    assert store.backlog() == (3, 6.0)
    held = claim(store)
    assert store.ahead(rows[1]) == (0, 1.0) if rows[1] else False
    store.complete(held, {})


def test_workers_never_share_a_task(store: TaskStore):
    ids, taken, lock = {add(store) for _ in range(24)}, [], threading.Lock()

    def work(name: str):
        while (held := store.claim(name)) is not None:
            with lock:
                taken.append(held.id)
            store.complete(held, {})

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_a_database_that_cannot_be_used_is_one_clear_error(tmp_path):
    for url in ("nonsense", "nosuch://x", f"sqlite:///{tmp_path}/no/such/folder/t.db"):
        with pytest.raises(StorageError) as caught:
            TaskStore(url)
        assert "\n" not in str(caught.value)
    with pytest.raises(StorageError) as caught:
        TaskStore("mysql://user:secretword@h/db")
    assert "secretword" not in str(caught.value)


class Lives(RuleBasedStateMachine):
    """Any interleaving of workers that work, die and come back: states never move back, nothing ends twice."""

    def __init__(self):
        super().__init__()
        self.store = TaskStore("sqlite:///file:lives?mode=memory&cache=shared&uri=true")
        with self.store.engine.begin() as connection:
            from serve.tasks import TASKS

            connection.execute(TASKS.delete())
        self.ids: list[str] = []
        self.claims: list[Claim] = []
        self.ended: dict[str, str] = {}
        self.fences: dict[str, int] = {}

    @rule()
    def submit(self):
        self.ids.append(add(self.store))

    @rule(dies=st.booleans())
    def take(self, dies: bool):
        held = self.store.claim("w", lease_s=-1 if dies else 60)
        if held is not None:
            assert held.fence > self.fences.get(held.id, 0)
            self.fences[held.id] = held.fence
            self.claims.append(held)

    @rule(pick=st.integers(0, 99), how=st.sampled_from(["complete", "fail", "cancelled", "release", "renew"]))
    def act(self, pick: int, how: str):
        if not self.claims:
            return
        held = self.claims[pick % len(self.claims)]
        try:
            if how == "complete":
                self.store.complete(held, {})
            elif how == "fail":
                self.store.fail(held, code="x", message="x")
            elif how == "cancelled":
                self.store.cancelled(held)
            elif how == "release":
                self.store.release(held, crashed=False)
            else:
                self.store.renew(held)
        except LostLeaseError:
            assert held.id in self.ended or self.fences[held.id] > held.fence
            return
        assert held.fence == self.fences[held.id] and held.id not in self.ended
        if how in ("complete", "fail", "cancelled"):
            self.ended[held.id] = {"complete": "completed", "fail": "failed"}.get(how, how)

    @invariant()
    def ends_are_final(self):
        for task_id in self.ids:
            row = self.store.get(task_id)
            assert row is not None
            if task_id in self.ended:
                assert row["state"] == self.ended[task_id]
            elif row["state"] == "failed":
                self.ended[task_id] = "failed"  # given up after too many crashes
                self.fences[task_id] = row["fence"]


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@given(st.text(max_size=40))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_is_a_harmless_id(tmp_path_factory, text: str):
    if not hasattr(test_any_text_is_a_harmless_id, "store"):
        folder = tmp_path_factory.mktemp("ids")
        test_any_text_is_a_harmless_id.store = TaskStore(f"sqlite:///{folder}/t.db")  # type: ignore[attr-defined]
    assert test_any_text_is_a_harmless_id.store.get(text, "k") is None  # type: ignore[attr-defined]
