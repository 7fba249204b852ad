"""Metrics, dashboard, manifest and logs: each names only what exists, and nothing private."""

import json
import logging
import re
from pathlib import Path

import httpx
import psutil
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from kling.errors import ConfigError
from kling.schema import VideoConfig
from serve.app import from_config
from serve.metrics import METRICS, Meter

from .conftest import ROOT, Service, until
from .test_api import BODY, Api

_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


def test_each_query_of_the_dashboard_names_a_metric_and_labels_that_exist():
    board = json.loads((ROOT / "serve/dashboards/kling.json").read_text())
    exported = {f"ray_{name}{end}": name for name, metric in METRICS.items() for end in _SUFFIXES[metric.kind]}
    shown = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            named = re.findall(r"ray_\w+", target["expr"])
            assert named, panel["title"]
            for name in named:
                assert name in exported, f"{panel['title']}: {name}"
                shown.add(exported[name])
            for label in re.findall(r"by \((\w+)\)", target["expr"]):
                assert label == "le" or label in METRICS[exported[named[0]]].tags
    assert shown == set(METRICS), "what is measured is shown"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_a_metric_that_is_not_listed_cannot_be_recorded():
    with pytest.raises(KeyError):
        Meter().add("kling_surprise")


def test_the_manifest_is_one_that_serve_takes_and_our_graph_understands(monkeypatch):
    manifest = yaml.safe_load((ROOT / "serve/deploy/rayservice.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    [application] = config.applications
    assert application.import_path == "serve.app:from_config"
    args = dict(application.args)
    with pytest.raises(ConfigError, match="not set"):
        from_config(args)
    monkeypatch.setenv("KLING_DATABASE", "postgresql+psycopg://u:p@db/kling")
    monkeypatch.setattr("kling.storage.is_local", lambda uri: False)
    ingress = from_config(args)._bound_deployment
    assert ingress.name == "Ingress"
    cluster = manifest["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["containers"][0]["image"]
    workers = cluster["workerGroupSpecs"][0]["template"]["spec"]
    gpus = int(workers["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert gpus == args["num_ranks"] and workers["terminationGracePeriodSeconds"] > 30
    with pytest.raises(ConfigError, match="unknown argument"):
        from_config({**args, "num_rank": 8})


def test_logs_hold_neither_prompts_nor_keys(tmp_path, caplog):
    api = Api(tmp_path)
    secret = "SECRETPROMPT"
    with caplog.at_level(logging.DEBUG):
        made = api.post(json={**BODY, "prompt": f"{secret} ball"})
        assert made.status_code == 202
        api.post(json={"prompt": secret, "config": {"seed": secret}})
        api.get(f"/kling/v1.6/status/{made.json()['task_id']}")
        api.get("/kling/v1.6/tasks", headers={"Authorization": f"Bearer kling_{secret}_x"})
    told = [str(vars(record)) for record in caplog.records]
    assert any(made.json()["task_id"] in line for line in told), "the task is named"
    bearer = api.key["Authorization"].removeprefix("Bearer ")
    assert not any(secret in line or bearer in line for line in told)


def _exported() -> dict[str, float]:
    """Our metrics as Prometheus would read them from the node, summed over labels."""
    [node] = [node for node in ray.nodes() if node["Alive"]]
    text = httpx.get(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=30).text
    sums: dict[str, float] = {}
    for name, value in re.findall(r"^ray_(kling_\w+)(?:\{.*\})? (\S+)$", text, flags=re.MULTILINE):
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_metrics_reach_prometheus_and_move_and_lines_of_the_log_name_the_task(service: Service):
    before, secret = _exported(), "SECRETPROMPT"
    with service.client() as client:
        small = client.generate(f"{secret} ball", config=VideoConfig(steps=2, resolution="70x70"))
        assert client.wait(small.task_id).status == "completed"
        long = client.generate("a ball", config=VideoConfig(steps=200))
        until(lambda: client.get(long.task_id).status == "running", 60)
        client.cancel(long.task_id)
    with service.http() as http:
        assert http.post("/generate", json={"prompt": "x", "extend": "task_nowhere"}).status_code == 404
    moved = ("queue_seconds_count", "step_seconds_count", "ttff_seconds_count", "task_seconds_count", "tasks_total",
             "downgrades_total", "refusals_total")  # fmt: skip

    def grown() -> bool:
        now = _exported()
        return all(now.get(f"kling_{name}", 0) > before.get(f"kling_{name}", 0) for name in moved)

    until(grown, 60)
    now = _exported()
    assert now["kling_memory_bytes"] > 1e8 and now["kling_budget_bytes"] > 1e8
    assert {"kling_backlog_seconds", "kling_waiting_tasks"} <= set(now)

    raylet = next(p for p in psutil.Process().children(recursive=True) if "--log_dir" in " ".join(p.cmdline()))
    folder = next(word for word in raylet.cmdline() if word.startswith("--log_dir=")).removeprefix("--log_dir=")
    lines = [line for path in Path(folder, "serve").glob("replica_*") for line in path.read_text().splitlines()]
    told = [json.loads(line) for line in lines if small.task_id in line]
    assert {"task accepted", "task started", "task completed"} <= {line.get("message") for line in told}
    assert all(line["task"] == small.task_id for line in told if line.get("message", "").startswith("task "))
    bearer = service.key.rpartition("_")[2]
    assert not [line for line in lines if secret in line or bearer in line]
