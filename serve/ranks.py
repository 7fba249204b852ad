"""The processes of one replica: ranks that denoise together, and a decoder that turns latents into frames.

Light to import: the leader makes these actors without loading the networks' libraries; `load` does, in each process.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil
import ray

from kling.errors import InternalError

from .memory import Keeper
from .orders import Order

if TYPE_CHECKING:
    from .frames import FrameMaker
    from .work import Denoiser

Worker = TypeVar("Worker")

TELL_EVERY_S = 0.1  # steps and frames that follow faster are told together: each word costs both sides a millisecond


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """What every process of a replica needs to know."""

    preset: str
    weights: str | None  # None: the packaged ones
    state: str
    num_ranks: int  # even: half of them take each branch of guidance; the rest of the division is by attention heads
    num_threads: int  # of one process
    device: str = "cpu"
    token_step_s: float = 1e-3  # of a sampling step for one token, until it is measured
    silent_s: float = 20.0  # without an answer to a ping: frozen. Healthy ones were seen silent for more than 5 s

    @property
    def guidance_ranks(self) -> int:
        return 2 if self.num_ranks % 2 == 0 else 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt at a task, as the engine gives it to its processes."""

    task_id: str
    attempt: int
    order: Order

    @property
    def name(self) -> str:
        return f"{self.task_id}:{self.attempt}"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a rank tells its leader while it works."""

    stage: str  # text | denoise | denoised | stopped
    step: int = 0
    num_steps: int = 0
    step_s: float = 0.0  # mean of the steps since the last event


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a process found out about itself when it started: a rank by tokens, the decoder by pixels of one frame."""

    seconds: float  # of a sampling step for one token; to decode one pixel
    idle_bytes: int
    fixed_bytes: float  # more at the peak of any task
    each_bytes: float  # and for each token, or pixel


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Frames written so far; the last one carries the result."""

    num_frames: int
    video_bytes: int = 0
    sha256: str = ""
    pace: tuple[dict, ...] = ()  # kling.schema.Pace of each chunk of a realtime task


class _Process:
    """What the leader may ask of any of its processes while it works."""

    def __init__(self) -> None:
        self._stopped = ""  # the attempt that is to stop; a later attempt at the same task is not meant
        self._keeper = Keeper()

    @ray.method(concurrency_group="health")
    def ping(self) -> tuple[int, float]:
        """This process's id, and when it was started."""
        return os.getpid(), psutil.Process().create_time()

    @ray.method(concurrency_group="control")
    def stop(self, attempt: str) -> None:
        self._stopped = attempt

    def _wants_stop(self, job: Job) -> Callable[[], bool]:
        return lambda: self._stopped == job.name


@ray.remote(concurrency_groups={"health": 1, "control": 1})  # type: ignore[call-overload]
class Rank(_Process):
    """One rank. The leader makes it, loads it, and asks it for tasks one at a time."""

    def __init__(self, settings: RankSettings, index: int):
        super().__init__()
        self._settings, self._index = settings, index
        self._denoiser: Denoiser | None = None

    def address(self) -> str:
        """Where the group meets: a free port of this node."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def load(self, address: str) -> None:
        """Join the group and load the networks. Raises CheckpointError when the weights cannot be used."""
        from .work import Denoiser

        self._denoiser = Denoiser(self._settings, self._index, address)

    def calibrate(self) -> Measured:
        """All ranks of a group at once."""
        return _loaded(self._denoiser).calibrate()

    def make(self, job: Job) -> Iterator[Event]:
        """Denoise one task from its last saved state; ends with `denoised`, the state saved, or with `stopped`."""
        wants_stop = self._wants_stop(job)
        with self._keeper.task(wants_stop):
            yield from _loaded(self._denoiser).run(job, wants_stop)


@ray.remote(concurrency_groups={"health": 1, "control": 1})  # type: ignore[call-overload]
class Decoder(_Process):
    """Latents to frames to mp4, in a process of its own, so that the ranks go on with the next task."""

    def __init__(self, settings: RankSettings):
        super().__init__()
        self._settings = settings
        self._maker: FrameMaker | None = None

    def load(self) -> None:
        from .frames import FrameMaker

        self._maker = FrameMaker(self._settings)

    def calibrate(self) -> Measured:
        return _loaded(self._maker).calibrate()

    def decode(self, job: Job) -> Iterator[Decoded]:
        """Frames to storage as they come, then the whole video."""
        wants_stop = self._wants_stop(job)
        with self._keeper.task(wants_stop):
            yield from _loaded(self._maker).run(job, wants_stop)


def _loaded(worker: Worker | None) -> Worker:
    if worker is None:
        raise InternalError("a process was asked to work before it was loaded")
    return worker
