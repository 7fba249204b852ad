"""Fixtures every test may use: one local Ray cluster a session, seeds, golden files, no network.

Array types in signatures (jaxtyping) are checked while tests run, and only then. `make test` runs the library's in two
processes (pytest-xdist); which tests stay together is decided by `lane`.
"""

import importlib.util
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small: threads that wait for each other only slow them

# torch's CUDA build brings triton, whose LLVM and OSMesa's share a process only if triton's is loaded first.
if importlib.util.find_spec("triton"):
    importlib.import_module("triton")

from jaxtyping import install_import_hook

install_import_hook(["kling.model", "kling.diffusion"], "beartype.beartype")

import pytest  # noqa: E402

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
_LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", ""}


def lane(item: pytest.Item) -> str:
    """Tests of one lane run in one process, in their order: they share a cluster, a service, or a module's fixtures."""
    if "service" in item.fixturenames:  # type: ignore[attr-defined] - of a Function
        return "serve"
    if item.get_closest_marker("ray") or "undisturbed" in item.fixturenames:  # type: ignore[attr-defined]
        return "ray"
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over several processes the long lanes begin first. They mostly wait, for processes that start or are found dead;
    meanwhile the other processes compute."""
    if not config.getoption("loadgroup", False):
        return
    lanes = {item: lane(item) for item in items}
    slow = {lanes[item] for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (lanes[item] not in ("serve", "ray"), lanes[item] not in slow))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(lanes[item]))


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Default tests never reach the network: a connection to another machine fails loudly.

    Ray asks a public address only to learn its own (a UDP connect, which sends nothing): that is let through.
    """
    real = socket.socket.connect

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
            own = {*_LOCAL, *(info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None))}
            if address[0] not in own:
                raise RuntimeError(f"a test tried to reach the network: {address}")
        return real(self, address)

    socket.socket.connect = connect
    yield
    socket.socket.connect = real


@pytest.fixture(autouse=True, scope="module")
def ordinary_priority():
    """No module makes this process a real-time one: what it starts later would inherit that, and starve the machine."""
    yield
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a library has changed this process's scheduling class"


@pytest.fixture(scope="session")
def ray_cluster():
    """The one local cluster of the session. 8 logical CPUs on any machine: tests are small, placement counts."""
    import ray

    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=True,
        object_store_memory=400 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights folder of preset `tiny`: right in shape, seeded, untrained."""
    import torch

    from kling.model.checkpoint import save_part
    from kling.model.dit import DiT
    from kling.model.text import TextEncoder
    from kling.model.vae import VideoVAE
    from kling.presets import get_preset

    uri, preset = str(tmp_path_factory.mktemp("weights") / "tiny"), get_preset("tiny")
    torch.manual_seed(0)
    dit = DiT(preset.dit)
    for parameter in dit.parameters():  # what starts at zero (controls, the last projection) must show here
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    for name, module in (("dit", dit), ("vae", VideoVAE(preset.vae)), ("text", TextEncoder(preset.text))):
        save_part(uri, name, module, preset="tiny", note="seeded for tests, untrained")
    return uri


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, object], object]:
    """``golden(name, value)`` returns the committed value of tests/golden/NAME.json for comparison.

    `KLING_UPDATE_GOLDEN=1 pytest ...` writes the new value instead, for a person to review in the diff.
    """

    def check(name: str, value: object) -> object:
        path = GOLDEN / f"{name}.json"
        if os.environ.get("KLING_UPDATE_GOLDEN") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(value, indent=1) + "\n")
        assert path.exists(), f"no golden file {path}: run once with KLING_UPDATE_GOLDEN=1 and review it"
        return json.loads(path.read_text())

    return check
