"""The graph, on one page: an HTTP ingress, and replicas that each own a group of ranks.

    clients ──HTTP──▶ Ingress ──rows──▶ database ◀──claims── Engine (replica) ──▶ Rank 0..N-1, Decoder
                         ▲                                        │
                         └────────────── STATE/media ◀── frames, latents, videos

Ingress and replicas meet only in the database and in storage, so either may be killed and replaced at any moment.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import psutil
import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from kling import storage
from kling.errors import RAY_FIX, ConfigError, ServiceError, starting
from kling.presets import get_preset

from .engine import Engine, EngineSettings
from .ingress import IngressSettings, build_api
from .ranks import RankSettings

APP_NAME = "kling"
_HTTP_S = 120.0
# Serve takes a proxy that needs longer than 5 s for dead, which on a busy laptop it is not.
_PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """One service."""

    preset: str
    state: str  # URI of the folder with media and the service's secret, seen by every node
    database: str = ""  # SQLAlchemy URL; default: SQLite in a local state folder
    checkpoint: str | None = None  # URI of a weights folder; None: the packaged ones
    num_replicas: int = 1
    num_ranks: int = 2  # an even number: CFG parallel; beyond it (or odd): sequence parallel, by attention heads
    min_replicas: int | None = None  # None: always num_replicas; 0: no replica while there is no work
    target_queued_s: float = 60.0  # predicted seconds of waiting work that one replica more is for
    idle_s: float = 120.0  # so long must fewer replicas be enough before any is taken away
    num_ingress: int = 1
    device: str = "cpu"
    memory_bytes: int | None = None  # one replica may use so much; None: see `budget_bytes`
    max_waiting: int = 1000  # tasks in the queue; what comes then is refused with 503
    silent_s: float = 20.0  # a process that does not answer its ping for so long counts as frozen

    def __post_init__(self):
        get_preset(self.preset)
        if min(self.max_waiting, self.silent_s) <= 0:
            raise ConfigError("a queue of nobody and a ping of no time serve nobody", where="max_waiting, silent_s")
        if min(self.num_replicas, self.num_ingress, self.num_ranks) < 1:
            raise ConfigError("at least one replica, rank and ingress", where="num_replicas, num_ranks, num_ingress")
        if self.min_replicas is not None and not 0 <= self.min_replicas <= self.num_replicas:
            raise ConfigError("min_replicas lies between 0 and num_replicas", where=f"min_replicas={self.min_replicas}")

    @property
    def database_url(self) -> str:
        if self.database:
            return self.database
        if not storage.is_local(self.state):
            raise ConfigError(
                "a state folder that is not local needs a database that every node reaches",
                where=self.state,
                fix="Pass --database postgresql+psycopg://...",
            )
        return f"sqlite:///{storage.join(storage.resolve(self.state)[1], 'tasks.db')}"

    @property
    def budget_bytes(self) -> int:
        """Memory of one replica: what was set, else an equal part of 80 % of this machine's."""
        return self.memory_bytes or int(0.8 * psutil.virtual_memory().total) // self.num_replicas

    @property
    def num_threads(self) -> int:
        """Of each rank and of the decoder, which work at the same time. Threads that wait for each other on a core that
        is not theirs are worse than none: two on a busy core took 20 times one's time."""
        return max(1, (os.cpu_count() or 1) // (self.num_ranks + 1))

    @property
    def num_cpus(self) -> int:
        """Logical CPUs the whole graph asks Ray for."""
        return self.num_ingress + self.num_replicas * (1 + self.num_ranks)


def graph(settings: ServiceSettings) -> ray_serve.Application:
    """The application, for `serve.run` or a RayService's import path."""
    gpu = settings.device.startswith("cuda")
    ranks = RankSettings(
        preset=settings.preset,
        weights=settings.checkpoint,
        state=settings.state,
        num_ranks=settings.num_ranks,
        num_threads=settings.num_threads,
        device=settings.device,
        silent_s=settings.silent_s,
    )
    rank_bundle = {"CPU": 1.0, "GPU": 1.0} if gpu else {"CPU": 1.0}
    engine = _deployment(Engine).options(
        name="Engine",
        **_replicas(settings),
        # The leader and the decoder share bundle 0; each rank has its own. One node holds a whole replica.
        placement_group_bundles=[{"CPU": 1.0}, *([rank_bundle] * settings.num_ranks)],
        placement_group_strategy="STRICT_PACK",
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=30,
    )
    ingress_settings = IngressSettings(
        preset=settings.preset,
        state=settings.state,
        database=settings.database_url,
        num_workers=settings.num_replicas,
        max_waiting=settings.max_waiting,
        scales_to_zero=settings.min_replicas == 0,
    )
    api = ray_serve.ingress(lambda: build_api(ingress_settings))(Ingress)
    ingress = _deployment(api).options(
        name="Ingress",
        num_replicas=settings.num_ingress,
        max_ongoing_requests=256,
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=5,
    )
    bound = engine.bind(EngineSettings(ranks=ranks, database=settings.database_url, budget_bytes=settings.budget_bytes))
    return ingress.bind(bound)


def from_config(args: dict) -> ray_serve.Application:
    """The application of a Serve config file: its ``args`` are `ServiceSettings`.

    ``database_variable`` names an environment variable that holds the database's URL, so that no file has its password.

    Raises:
        ConfigError: an unknown argument, a variable that is not set.
    """
    given = dict(args)
    variable = given.pop("database_variable", None)
    if variable is not None:
        if not os.environ.get(variable):
            raise ConfigError("the environment variable with the database's URL is not set", where=variable)
        given["database"] = os.environ[variable]
    unknown = sorted(set(given) - set(ServiceSettings.__dataclass_fields__))
    if unknown:
        known = ", ".join(ServiceSettings.__dataclass_fields__)
        raise ConfigError("unknown argument", where=unknown[0], fix=f"Choose from: {known}, database_variable")
    return graph(ServiceSettings(**given))


def _replicas(settings: ServiceSettings) -> dict:
    """A fixed number of them, or by the work that waits."""
    if settings.min_replicas is None:
        return {"num_replicas": settings.num_replicas}
    policy = AutoscalingPolicy(
        policy_function="serve.scaling:QueuedSeconds",
        policy_kwargs={
            "database": settings.database_url,
            "target_s": settings.target_queued_s,
            "idle_s": settings.idle_s,
        },
    )
    scaling = AutoscalingConfig(
        min_replicas=settings.min_replicas,
        max_replicas=settings.num_replicas,
        initial_replicas=max(1, settings.min_replicas),
        upscale_delay_s=0,
        downscale_delay_s=0,  # the policy has its own
        policy=policy,
    )
    return {"autoscaling_config": scaling}


@contextlib.contextmanager
def connected(settings: ServiceSettings) -> Iterator[None]:
    """The cluster of RAY_ADDRESS, or one of our own on this machine; what was started is stopped at the end."""
    address = os.environ.get("RAY_ADDRESS")
    log_style = {"env_vars": {"RAY_SERVE_LOG_ENCODING": "JSON"}}
    with starting("Ray", where=address or "local", fix=RAY_FIX):
        if address:
            ray.init(address=address, namespace="kling", runtime_env=log_style, log_to_driver=False)
        else:
            # Ray's own 15 would let anything else on this machine go before who asks the service.
            os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, settings.num_cpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=300 * 2**20,
                namespace="kling",
                runtime_env=log_style,
            )
    try:
        yield
    finally:
        if ray.is_initialized():
            with contextlib.suppress(Exception):  # the cluster may be gone already; we are leaving either way
                ray_serve.delete(APP_NAME) if address else ray_serve.shutdown()
            ray.shutdown()


def start(settings: ServiceSettings, *, host: str, port: int) -> None:
    """Start Serve and the application on the connected cluster; returns when every replica is up and HTTP answers.

    Raises:
        ServiceError: a replica cannot start (its own reason), or nothing answers.
    """
    where = f"{host}:{port}"
    for last in (False, False, True):
        try:
            ray_serve.start(
                http_options={"host": host, "port": port},
                logging_config={"encoding": "JSON"},
                controller_options={"runtime_env": {"env_vars": _PATIENCE}},
            )
            break
        except (TimeoutError, RayError) as error:  # a busy machine: Serve goes on starting, we look again
            if last:
                raise ServiceError(f"Ray Serve did not start ({type(error).__name__})", where=where) from error
    try:
        ray_serve.run(graph(settings), name=APP_NAME, route_prefix="/", logging_config={"encoding": "JSON"})
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ServiceError("the replicas did not start", where=reason) from error
    deadline = time.monotonic() + _HTTP_S
    while True:
        try:
            if httpx.get(f"http://{where}/live", timeout=5).status_code == 200:
                return
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise ServiceError("HTTP does not answer", where=where) from error
        time.sleep(0.1)


def _deployment(kind: type | Callable) -> ray_serve.Deployment:
    """Ray's decorator, typed for what it returns when it is called."""
    return ray_serve.deployment(kind)  # type: ignore[return-value]


class Ingress:
    """The HTTP application's replica. It holds the engine's handle only so that Ray Serve deploys both as one."""

    def __init__(self, engine: DeploymentHandle):
        self.engine = engine
