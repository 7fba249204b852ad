"""The keeper of the decoder process: starts it, gives it requests, kills it when a file takes too long or too much."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.work import FilteredError
from kling.errors import InputError

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may cost."""

    timeout_s: float = 120.0  # without an answer for so long, the decoder is killed
    memory_bytes: int = 4 * 2**30  # address space of the decoder; 4K frames of every codec fit
    max_frames: int = 2 * 3600 * 60  # two hours at 60 fps; a longer file is cut there, and the ledger says so
    max_pixels: int = 8192 * 8192  # of one picture
    max_file_bytes: int = 64 * 2**30  # of the file itself


class Sandbox:
    """One decoder process, replaced when it dies. Not for two threads at a time."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def scan(self, path: str, *, thumbs: bool = False) -> dict[str, Any]:
        """Times of all frames, cuts and the file's description (see `data.stages.decoder`).

        ``rows`` and ``columns`` are luma profiles of the frames in ``samples``; ``thumbs`` (f 27 48 3) if asked for.

        Raises:
            InputError: nothing can be decoded, or a limit was hit; ``what`` is the reason for the ledger.
            FilteredError: the file is sound but of no use (sound only, pictures too large).
        """
        answer, arrays = self._ask({"op": "scan", "path": path, "thumbs": thumbs})
        return answer | dict(zip(("rows", "columns", "thumbs"), arrays, strict=False))

    def frames(self, path: str, request: dict[str, Any]) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
        """Pixels of some clips (f h w 3 uint8 each) and their stills; None for a clip that cannot be decoded.

        Raises:
            InputError: as `scan`.
        """
        answer, arrays = self._ask({**request, "op": "frames", "path": path})
        num_clips = len(request["clips"])
        pixels = [None if i in answer["missing"] else array for i, array in enumerate(arrays[:num_clips])]
        stills: list[np.ndarray | None] = [still if still.size else None for still in arrays[num_clips:]]
        return pixels, stills or [None] * num_clips

    def original(self, path: str, *, start_s: float, end_s: float, zero_s: float) -> bytes:
        """The source's own packets from the key frame at ``start_s``, as a Matroska file.

        Raises:
            InputError: as `scan`; also where Matroska cannot hold the codec.
        """
        request = {"op": "original", "path": path, "start_s": start_s, "end_s": end_s, "zero_s": zero_s}
        return self._ask(request)[1][0].tobytes()

    def close(self) -> None:
        """End the process. The sandbox may be used again; it starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
                    pipe.close()  # type: ignore[union-attr]
            self._process = None

    def __del__(self):
        self.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "data.stages.decoder", str(self._limits.memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # FFmpeg's remarks on a broken file come back as the reason
                env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        return self._process

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
        request |= {"max_frames": self._limits.max_frames, "max_pixels": self._limits.max_pixels}
        process = self._start()
        assert process.stdin and process.stdout
        deadline = time.monotonic() + self._limits.timeout_s
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            head, rest = self._read_line(process, deadline)
            answer = json.loads(head)
            sizes = [int(np.prod(shape)) for shape in answer["shapes"]]
            body = self._read(process, sum(sizes), rest, deadline)
        except _GoneError as error:
            self.close()
            raise InputError(str(error), fix="The file was set aside") from None
        except BrokenPipeError:
            self.close()
            raise InputError("the decoder died on this file") from None
        if answer.get("error"):
            if answer.get("kind") == "filtered":
                raise FilteredError(answer["error"])
            raise InputError(answer["error"])
        ends = np.cumsum([0, *sizes])
        flat = np.frombuffer(body, np.uint8)
        shaped = zip(ends, ends[1:], answer["shapes"], strict=False)
        return answer, [flat[a:b].reshape(shape) for a, b, shape in shaped]

    def _read_line(self, process, deadline: float) -> tuple[bytes, bytes]:
        data = b""
        while b"\n" not in data:
            data += self._chunk(process, deadline)
        head, _, rest = data.partition(b"\n")
        return head, rest

    def _read(self, process, count: int, start: bytes, deadline: float) -> bytearray:
        body = bytearray(start)
        while len(body) < count:
            body += self._chunk(process, deadline)
        return body

    def _chunk(self, process, deadline: float) -> bytes:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise _GoneError(f"decoding took longer than {self._limits.timeout_s:g} s")
        data = os.read(process.stdout.fileno(), 2**20)
        if not data:
            code = process.wait()
            raise _GoneError(f"the decoder died on this file (exit {code})")
        return data


class _GoneError(Exception):
    """The decoder gave no answer; the text says why."""
