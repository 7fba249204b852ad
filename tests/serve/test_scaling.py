"""The autoscaling policy: replicas by queued seconds, to zero and back, and never away in a hurry."""

from types import SimpleNamespace

import pytest

from serve.app import ServiceSettings, graph
from serve.keys import KeyStore, Limits
from serve.scaling import QueuedSeconds
from serve.tasks import TaskStore

from .test_api import BODY, Api
from .test_tasks import a_task


def context(current: int, least: int = 0, most: int = 4):
    return SimpleNamespace(
        capacity_adjusted_min_replicas=least, capacity_adjusted_max_replicas=most, target_num_replicas=current
    )


@pytest.fixture
def scaled(tmp_path):
    url, now = f"sqlite:///{tmp_path}/tasks.db", [0.0]
    store = TaskStore(url)

    def add(seconds: float, count: int = 1) -> None:
        with store.engine.begin() as connection:
            for _ in range(count):
                store.add(connection, a_task(predicted_s=seconds))

    return store, add, now, QueuedSeconds(url, target_s=60.0, idle_s=100.0, clock=lambda: now[0])


def test_replicas_follow_seconds_of_work_and_not_the_number_of_tasks(scaled):
    _, add, _, policy = scaled
    assert policy(context(0))[0] == 0, "nothing to do"
    add(1.0, count=20)
    assert policy(context(0))[0] == 1, "twenty thumbnails are one replica's work"
    add(100.0, count=2)
    number, reason = policy(context(1))
    assert number == 4 and reason["waiting"] == 22 and reason["queued_s"] == 220.0
    assert policy(context(1, most=2))[0] == 2, "the cluster's bound"


def test_one_long_task_is_not_divided(scaled):
    _, add, _, policy = scaled
    add(1000.0)
    assert policy(context(0))[0] == 1


def test_down_only_after_a_quiet_while_and_to_zero(scaled):
    store, add, now, policy = scaled
    add(60.0, count=3)
    assert policy(context(1))[0] == 3
    while (claim := store.claim("w")) is not None:
        store.complete(claim, {})
    assert policy(context(3))[0] == 3
    now[0] = 99.0
    assert policy(context(3))[0] == 3
    add(200.0, count=4)
    assert policy(context(3))[0] == 4, "work came back: the clock starts anew"
    while (claim := store.claim("w")) is not None:
        store.complete(claim, {})
    assert policy(context(3))[0] == 3
    now[0] = 200.0
    assert policy(context(3))[0] == 0
    assert policy(context(3, least=1))[0] == 1


def test_the_graph_carries_the_policy_and_ray_accepts_it(tmp_path):
    settings = ServiceSettings(preset="tiny", state=str(tmp_path), num_replicas=3, min_replicas=0, idle_s=7.0)
    (engine,) = [a for a in graph(settings)._bound_deployment.init_args]
    config = engine._bound_deployment._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (0, 3)
    assert isinstance(config.policy.get_policy(), type) or callable(config.policy.get_policy())
    assert config.policy.policy_kwargs["idle_s"] == 7.0


def test_what_made_no_video_is_not_paid_for(tmp_path):
    api = Api(tmp_path)
    key = api.new_key(hour_s=100.0)
    body = {**BODY, "config": {"seed": 1, "duration": 10.0}}

    def used() -> float:
        return api.get("/kling/v1.6/usage", headers=key).json()["windows"][0]["used_s"]

    made = [api.post(json=body, headers=key).json()["task_id"] for _ in range(4)]
    assert used() == 40.0
    for _ in range(2):  # cancelling twice gives back once
        api.http.post(f"/kling/v1.6/cancel/{made[3]}", headers=key)
    assert used() == 30.0
    failed, half, done = (api.desk.store.claim("w") for _ in range(3))
    assert failed and half and done
    api.desk.store.fail(failed, code="internal", message="x")
    assert used() == 20.0
    api.desk.store.renew(half, reached={"stage": "denoise", "step": 4, "num_steps": 16})
    api.desk.store.cancelled(half)
    assert used() == 12.5, "a quarter of it was made"
    api.desk.store.complete(done, {})
    assert used() == 12.5


def test_a_database_of_an_earlier_version_gets_its_columns(tmp_path):
    import sqlalchemy as sa

    url = f"sqlite:///{tmp_path}/old.db"
    store = TaskStore(url)
    with store.engine.begin() as connection:
        task_id = store.add(connection, a_task())
        for name in ("kind", "charged_s"):
            connection.execute(sa.text(f"ALTER TABLE tasks DROP COLUMN {name}"))
    store.engine.dispose()
    row = TaskStore(url).get(task_id)
    assert row is not None and row["kind"] == "text" and row["charged_s"] == 0.0
    KeyStore(TaskStore(url).engine, b"x").create(name="k", scopes=frozenset({"read"}), limits=Limits())
