"""Memory of this process, measured: idle, at the peak of some work, and what of it grows with the work (Linux)."""

from collections.abc import Callable
from pathlib import Path

from kling.errors import InternalError

from .ranks import release_memory


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
