"""All of Ray Train: the ranks are started here, watched, and started again when a process or node was lost.

What is lost and what is wrong are told apart. A rank that died, a node that went away: the group starts again from the
newest complete checkpoint. An exception in our code or the person's data would only happen again: it ends the run.
"""

import errno
import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import ray
import ray.train as ray_train
from ray._private.worker import get_dashboard_url
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from kling import __version__, storage
from kling.errors import RAY_FIX, InternalError, KlingError, StorageError, starting
from kling.presets import Preset

from . import checkpoint
from .config import TrainRun
from .metrics import Record, append_event
from .objective import NOISE_LEVELS
from .preflight import check_run
from .progress import Display
from .ranks import Ranks

_ROOT = Path(__file__).parent.parent
# What the surviving ranks say when another one is gone (gloo, NCCL): a consequence, not a cause.
_CONSEQUENCES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Timed out", "timeout")


def train_dit(run: TrainRun, preset: Preset) -> str:
    """Train, on the cluster we are a job of or a local one; returns the weights folder's URI.

    Raises:
        KlingError: bad input, before any worker starts; or what a rank raised.
    """
    run = located(run)
    encoders = check_run(run, preset)
    record = {"stage": "dit", "version": __version__, **asdict(run)}
    storage.write_bytes(storage.join(run.out, "run.json"), json.dumps(record, indent=1).encode())
    connect(run.num_workers)
    restarts, before = 0, -1
    with Display(scratch_folder(run), run.steps) as display:
        while True:
            saved = checkpoint.latest(run.out)
            step = saved.progress.step if saved else 0
            restarts, before = (restarts + 1 if step == before else 0), step
            display.attempt(step)
            try:
                _fit(run, preset, encoders)
                return storage.join(run.out, "weights")
            except ray_train.WorkerGroupError as error:
                cause = _cause(error.worker_failures)
                if cause is not None:
                    raise cause from error
                append_event(scratch_folder(run), "lost ranks", ranks=sorted(error.worker_failures), step=step)
                if restarts >= run.max_restarts:
                    raise InternalError(
                        f"ranks were lost {restarts + 1} times in a row without a new checkpoint",
                        where=run.out,
                        fix=str(next(iter(error.worker_failures.values()))).splitlines()[-1],
                    ) from error
                display.say("ranks were lost: starting them again from the last checkpoint")


def located(run: TrainRun) -> TrainRun:
    """The run with whole paths: its ranks work in another folder."""
    places = {name: getattr(run, name) for name in ("data", "out", "weights", "start_from", "cache")}
    return replace(run, **{name: storage.absolute(uri) for name, uri in places.items() if uri is not None})


def connect(num_workers: int) -> None:
    """Join the cluster we are a job of (RAY_ADDRESS), or start one in this process that ends with it."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # How often the ranks are looked at. A rank that tells of a checkpoint waits for that look, and does not train.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    with starting("Ray", where=address, fix=RAY_FIX):
        if address != "local":
            ray.init(address=address, log_to_driver=False)
            return
        ray.init(
            address="local",
            num_cpus=max(num_workers + 1, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
            runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}},
        )


def _fit(run: TrainRun, preset: Preset, encoders: str) -> None:
    on_gpu = ray.cluster_resources().get("GPU", 0) >= run.num_workers
    storage_path = storage.join(run.out, "ray")
    trainer = _Trainer(
        _rank,
        train_loop_config={"run": run, "preset": preset, "encoders": encoders},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=600),
        scaling_config=ray_train.ScalingConfig(num_workers=run.num_workers, use_gpu=on_gpu),
        run_config=ray_train.RunConfig(
            name=f"fit-{int(time.time())}-{os.urandom(3).hex()}",
            storage_path=str(Path(storage_path).absolute()) if storage.is_local(storage_path) else storage_path,
            failure_config=ray_train.FailureConfig(max_failures=0),  # the caller starts again, see above
        ),
    )
    trainer.fit()


class _Trainer(TorchTrainer):
    """Without what frees the ranks' places after a controller's death where it cannot work.

    It asks the dashboard whether the controller lives. A cluster of our own has no dashboard, and ends with this
    process: there each run, and each start after a lost rank, waited 12 s for that question to time out.
    """

    def _create_default_callbacks(self) -> list:
        made = super()._create_default_callbacks()
        return made if get_dashboard_url() else [c for c in made if not isinstance(c, PlacementGroupCleanerCallback)]


def _rank(config: dict) -> None:
    """What each worker runs."""
    context = ray_train.get_context()
    device = ray_train.torch.get_device()
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from .loop import train  # imports DeepSpeed, which looks for its device

    run: TrainRun = config["run"]
    ranks = Ranks(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        local_rank=context.get_local_rank(),
        device=device,
        sequence_parallel=run.sequence_parallel,
    )
    gauges = Gauges(run.out)

    def report(record: Record, saved: str | None) -> None:
        if ranks.rank == 0:
            gauges.set(record)
        if saved is None:
            return
        with tempfile.TemporaryDirectory() as folder:  # Ray keeps a pointer; the checkpoint is where it is
            Path(folder, "checkpoint.json").write_text(json.dumps({"uri": saved}))
            pointer = ray_train.Checkpoint.from_directory(folder) if ranks.rank == 0 else None
            ray_train.report({k: v for k, v in record.items() if v == v}, checkpoint=pointer)

    train(run, config["preset"], ranks, scratch=scratch_folder(run), encoders=config["encoders"], report=report)


class Gauges:
    """The numbers of a step for Ray's Prometheus endpoint: kling_train_loss, kling_train_tokens_per_s, ..."""

    NAMES = (
        "step", "loss", *(f"loss_t_{high}" for high in NOISE_LEVELS), "grad_norm", "lr", "skipped",
        "tokens_per_s", "mfu", "step_s", "data_wait_s", "memory_bytes", "val_loss", "val_loss_text",
    )  # fmt: skip

    def __init__(self, out: str):
        from ray.util.metrics import Gauge

        self._gauges = {
            name: Gauge(f"kling_train_{name.replace('.', '_')}", description=f"training: {name}", tag_keys=("out",))
            for name in self.NAMES
        }
        for gauge in self._gauges.values():
            gauge.set_default_tags({"out": out})

    def set(self, record: Record) -> None:
        for name, gauge in self._gauges.items():
            if name in record:
                gauge.set(record[name])


def scratch_folder(run: TrainRun) -> Path:
    """Local folder of a node: the output itself if it is local, else one in the temp folder named by the output."""
    if run.cache is not None:
        return Path(run.cache)
    if storage.is_local(run.out):
        return Path(storage.resolve(run.out)[1])
    return Path(tempfile.gettempdir()) / f"kling-train-{hashlib.sha256(run.out.encode()).hexdigest()[:12]}"


def _cause(failures: dict[int, Exception]) -> Exception | None:
    """The exception that would happen again; None when ranks were lost, and starting again makes sense."""
    causes = [getattr(error, "_base_exc", error) for error in failures.values()]
    for error in causes:
        if isinstance(error, KlingError):
            return error
    if any(isinstance(error, RayError) or type(error).__module__.startswith("ray.") for error in causes):
        return None  # a dead process or node, a rank that does not answer
    for error in causes:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "Free some space and run it again: it continues from the last complete checkpoint"
            return StorageError("no space left", where=str(error.filename or ""), fix=fix)
        if not any(said in str(error) for said in _CONSEQUENCES):
            return error
    return None
