"""Clusters: cluster.yaml by Ray's own schema, the KubeRay manifest by its fields, the recipe on a local head."""

# ruff: noqa: N815 (fields are named as Kubernetes names them)

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from ray.autoscaler._private.util import prepare_config, validate_config

from train.__main__ import STAGES

ROOT = Path(__file__).parents[2]
DIGEST = r"^[\w.\-/:]+@sha256:[0-9a-f]{64}$"


class Strict(BaseModel):
    """A field that the custom resource does not have is a typing error, which Kubernetes would drop without a word."""

    model_config = ConfigDict(extra="forbid")


class Container(Strict):
    name: str
    image: str = Field(pattern=DIGEST)
    env: list[dict[str, str]]
    ports: list[dict[str, Any]] = []
    resources: dict[str, dict[str, str]]
    volumeMounts: list[dict[str, Any]]


class PodSpec(Strict):
    containers: list[Container] = Field(min_length=1)
    nodeSelector: dict[str, str] = {}
    volumes: list[dict[str, Any]]


class Template(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: Template


class WorkerGroup(HeadGroup):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class RayClusterSpec(Strict):
    rayVersion: str
    enableInTreeAutoscaling: bool
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayJobSpec(Strict):
    entrypoint: str
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: int
    backoffLimit: int
    rayClusterSpec: RayClusterSpec


def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_cluster_yaml_passes_rays_own_checks():
    prepared = prepare_config(cluster())
    validate_config(prepared)
    assert prepared["available_node_types"]["a100x8"]["resources"]["GPU"] == 8
    assert prepared["available_node_types"]["head"]["resources"]["CPU"] == 0


def test_a_mistyped_field_does_not_pass():
    broken = cluster() | {"idle_timeout_minuts": 5}
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        validate_config(prepare_config(broken))


def test_every_node_starts_with_a_token_and_the_image_has_a_digest():
    config = cluster()
    assert config["docker"]["image"].split("@sha256:")[1].isalnum()
    for group in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = next(line for line in config[group] if "ray start" in line)
        words = shlex.split(start.replace("$RAY_HEAD_IP", "head"))
        assert "RAY_AUTH_MODE=token" in words
        token = next(word for word in words if word.startswith("RAY_AUTH_TOKEN_PATH=")).split("=")[1]
        assert token in config["file_mounts"]


def test_the_rayjob_has_only_fields_that_exist_and_runs_a_command_that_exists():
    raw = yaml.safe_load((ROOT / "train" / "deploy" / "rayjob.yaml").read_text())
    assert (raw["apiVersion"], raw["kind"]) == ("ray.io/v1", "RayJob")
    spec = RayJobSpec.model_validate(raw["spec"])
    words = shlex.split(spec.entrypoint)
    assert words[:3] == ["python", "-m", "train"]
    (gpus,) = [g for g in spec.rayClusterSpec.workerGroupSpecs if "a100" in g.groupName]
    per_node = int(gpus.template.spec.containers[0].resources["limits"]["nvidia.com/gpu"])
    assert int(words[words.index("--num-workers") + 1]) == per_node * gpus.maxReplicas
    fields = STAGES["dit"][0].__dataclass_fields__
    assert all(word[2:].replace("-", "_") in fields for word in words if word.startswith("--"))
    with pytest.raises(ValueError, match="Extra inputs"):
        RayJobSpec.model_validate(raw["spec"] | {"shutdownAfterJobFinish": True})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_submission_recipe_runs_on_a_head_with_a_token():
    folder = Path(tempfile.mkdtemp(prefix="kling-ray-", dir="/tmp"))  # short: sockets live below it
    token = folder / "auth_token"
    token.write_text("a" * 64)
    token.chmod(0o600)
    bin_ = Path(sys.executable).parent
    env = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{bin_}:{os.environ['PATH']}",
    }
    env.pop("RAY_ADDRESS", None)
    port, dashboard = free_port(), free_port()
    start = [bin_ / "ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}",
             f"--dashboard-agent-listen-port={free_port()}",
             "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--num-cpus=1",
             "--object-store-memory=100000000", f"--temp-dir={folder}"]  # fmt: skip
    url = f"http://127.0.0.1:{dashboard}"
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(start, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert head.poll() is None, (folder / "log").read_text()
            try:
                refused = httpx.get(f"{url}/api/jobs/", timeout=10).status_code
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        assert refused == 401
        submit = [bin_ / "ray", "job", "submit", "--address", url, "--working-dir", str(ROOT), "--",
                  "python", "-m", "train", "plan", "12b", "--nodes", "8"]  # fmt: skip
        while True:
            done = subprocess.run(submit, env=env, capture_output=True, text=True, timeout=240, check=False)
            if "No available agent" not in done.stderr:  # the head answers a little before its agent does
                break
            assert time.monotonic() < deadline, done.stderr
            time.sleep(2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "succeeded" in done.stdout
        assert "GPU" in done.stdout
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        shutil.rmtree(folder, ignore_errors=True)
