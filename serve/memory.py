"""Memory of this process: idle, at the peak of some work, what of it grows with the work; and how it is given back
(Linux)."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

from kling.errors import InternalError

KEPT_BYTES = 128 * 2**20  # a task of preset tiny leaves 40 MiB in a rank and 65 in the decoder


class Keeper:
    """Gives back what a task has left: what an allocator keeps for itself, another process of the replica cannot use.

    Up to KEPT_BYTES stay, and cost the next task no page faults (10 ms in a rank, 30 in the decoder). Admission counts
    them. What is stopped leaves nothing.
    """

    def __init__(self) -> None:
        self._idle_bytes = 0  # until the first task has ended

    @contextlib.contextmanager
    def task(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """What is done inside is one task's, which may be stopped meanwhile."""
        try:
            yield
        finally:
            if stopped() or memory_bytes() - self._idle_bytes > KEPT_BYTES:
                release_memory()
                self._idle_bytes = memory_bytes()


def release_memory() -> None:
    """Give back all that an allocator keeps for itself."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # a libc without it keeps what it likes
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes(*, peak: bool = False) -> int:
    """Resident memory of this process, now or at its peak since `forget_peak` (Linux)."""
    label = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1]) * 1024
    raise InternalError("this system does not tell a process's memory", where=label)


def peak_bytes(work: Callable[[], object]) -> int:
    """How much more memory this process has at the peak of some work (Linux)."""
    release_memory()
    idle = memory_bytes()
    forget_peak()
    work()
    return max(0, memory_bytes(peak=True) - idle)


def line(small: tuple[int, int], large: tuple[int, int]) -> tuple[float, float]:
    """Bytes of nothing, and of each, where so many took so many bytes."""
    each = max(0.0, (large[1] - small[1]) / (large[0] - small[0]))
    return max(0.0, small[1] - each * small[0]), each


def forget_peak() -> None:
    """Start a new peak (Linux: proc_pid_clear_refs, value 5)."""
    Path("/proc/self/clear_refs").write_text("5")
