"""The processes of one replica: ranks that denoise together, and a decoder that turns latents into frames.

Light to import: the leader makes these actors without loading the networks' libraries; `load` does, in each process.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import ray

from kling.errors import InternalError

from .orders import Order

if TYPE_CHECKING:
    from .work import Denoiser, FrameMaker


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """What every process of a replica needs to know."""

    preset: str
    weights: str | None  # None: the packaged ones
    state: str
    num_ranks: int
    num_threads: int  # of one process
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a rank tells its leader while it works."""

    stage: str  # text | denoise | denoised | stopped
    step: int = 0
    num_steps: int = 0
    step_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Frames written so far; the last one carries the result."""

    num_frames: int
    video_bytes: int = 0
    sha256: str = ""


@ray.remote(concurrency_groups={"health": 1, "control": 1})  # type: ignore[call-overload]
class Rank:
    """One rank. The leader makes it, loads it, and asks it for tasks one at a time."""

    def __init__(self, settings: RankSettings, index: int):
        self._settings, self._index = settings, index
        self._denoiser: Denoiser | None = None
        self._stop = ""  # the task that is to stop

    def address(self) -> str:
        """Where the group meets: a free port of this node."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def load(self, address: str) -> None:
        """Join the group and load the networks. Raises CheckpointError when the weights cannot be used."""
        from .work import Denoiser

        self._denoiser = Denoiser(self._settings, self._index, address)

    def calibrate(self) -> tuple[float, int, int]:
        """Seconds, idle bytes, extra bytes at the peak (see work.py); all ranks of a group at once."""
        if self._denoiser is None:
            raise InternalError("a rank was asked to work before it was loaded")
        return self._denoiser.calibrate()

    @ray.method(concurrency_group="health")
    def ping(self) -> tuple[int, float]:
        return _me()

    @ray.method(concurrency_group="control")
    def stop(self, task_id: str) -> None:
        self._stop = task_id

    def make(self, task_id: str, order: Order) -> Iterator[Event]:
        """Denoise one task from its last saved state; ends with `denoised`, the state saved, or with `stopped`."""
        if self._denoiser is None:
            raise InternalError("a rank was asked to work before it was loaded")
        yield from self._denoiser.run(task_id, order, lambda: self._stop == task_id)


@ray.remote(concurrency_groups={"health": 1, "control": 1})  # type: ignore[call-overload]
class Decoder:
    """Latents to frames to mp4, in a process of its own, so that the ranks go on with the next task."""

    def __init__(self, settings: RankSettings):
        self._settings = settings
        self._maker: FrameMaker | None = None
        self._stop = ""

    def load(self) -> None:
        from .work import FrameMaker

        self._maker = FrameMaker(self._settings)

    def calibrate(self) -> tuple[float, int, int]:
        if self._maker is None:
            raise InternalError("the decoder was asked to work before it was loaded")
        return self._maker.calibrate()

    @ray.method(concurrency_group="health")
    def ping(self) -> tuple[int, float]:
        return _me()

    @ray.method(concurrency_group="control")
    def stop(self, task_id: str) -> None:
        self._stop = task_id

    def decode(self, task_id: str, order: Order) -> Iterator[Decoded]:
        """Frames to storage as they come, then the whole video."""
        if self._maker is None:
            raise InternalError("the decoder was asked to work before it was loaded")
        yield from self._maker.run(task_id, order, lambda: self._stop == task_id)


def _me() -> tuple[int, float]:
    """This process's id, and when it was started."""
    return os.getpid(), psutil.Process().create_time()
