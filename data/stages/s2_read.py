"""Step 2: read > shots > clips > decode. One source in, units of clips out; a bad file gives its reason instead."""

import contextlib
import hashlib
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data.stages import transnet
from data.stages.letterbox import picture_box
from data.stages.sandbox import Limits, Sandbox
from data.work import UNIT_BYTES, Clip, FilteredError, Options, Outcome, Source, Unit, clip_id
from kling import storage
from kling.errors import InputError, KlingError
from kling.presets import ClipSpec

# A file may be slower than the preset by so much; slower ones would need invented frames.
_MIN_RATE = 0.9
_VAL_SHARE = 20  # one source in so many is for validation
_GAP_S, _GAP_STEPS = 0.5, 4.0  # a gap is longer than both: so many seconds, so many usual steps
_STILL_PX = 640  # longer side of the still that text is looked for in, and that a captioner sees


@dataclass(frozen=True, kw_only=True)
class _Shot:
    times_s: list[float]  # of its frames, from the file's first frame
    interval_s: float  # between frames: how long the last one stands
    box_px: tuple[int, int, int, int]  # of the stored picture, without letterbox bars

    @property
    def start_s(self) -> float:
        return self.times_s[0]

    @property
    def length_s(self) -> float:
        return self.times_s[-1] + self.interval_s / 2 - self.times_s[0]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """One clip to be: the times of its frames and the part of the picture it shows."""

    times_s: list[float]
    box_px: tuple[int, int, int, int]


class Reader:
    """Turns sources into units. Holds a decoder process; one reader a worker."""

    def __init__(self, spec: ClipSpec, limits: Limits, options: Options | None = None):
        self._spec, self._limits, self._sandbox = spec, limits, Sandbox(limits)
        self._options = options or Options()
        self._uncut: list[str] = []  # why originals of the source at hand could not be kept

    def __call__(self, source: Source) -> Iterator[Unit]:
        """Yields the source's units in order; the last carries the outcome. Never raises on account of the file."""
        started = time.perf_counter()
        outcome = Outcome(source=source.name, fingerprint=source.fingerprint, state="done")
        stage, index, self._uncut = "read", 0, []
        try:
            with _local_copy(source, self._limits.max_file_bytes) as path:
                sidecar = storage.read_bytes(source.sidecar).decode() if source.sidecar else None
                stage = "decode"
                scan = self._sandbox.scan(path, thumbs=self._options.shots == "transnet")
                outcome = replace(outcome, duration_s=scan["times_s"][-1], warnings=_warnings(scan))
                stage = "shots"
                shots = _shots(scan, self._options.shots, whole=sidecar is not None)
                plans = [plan for shot in shots for plan in _clips(shot, self._spec)]
                if sidecar is not None:
                    plans = [plan for plan in plans[:1] if plan.times_s[0] == 0]  # the truth begins with the file
                outcome = replace(
                    outcome,
                    num_shots=len(shots),
                    num_short_shots=sum(not _clips(shot, self._spec) for shot in shots),
                    num_clips=len(plans),
                )
                _refuse(scan, plans, self._spec)
                stage = "decode"
                size = max(1, UNIT_BYTES // (self._spec.num_frames * self._spec.height_px * self._spec.width_px * 3))
                groups = [plans[i : i + size] for i in range(0, len(plans), size)]
                outcome = replace(outcome, num_units=len(groups))
                for index, group in enumerate(groups):
                    clips = self._decode(source, path, scan, group, index * size)
                    last = self._told(outcome) if index == len(groups) - 1 else None
                    now = time.perf_counter()
                    seconds = {"read": now - started}
                    yield Unit(source=source, index=index, clips=clips, sidecar=sidecar, outcome=last, seconds=seconds)
                    started = time.perf_counter()
        except FilteredError as reason:
            outcome = replace(outcome, state="filtered", stage=stage, reason=str(reason))
        except KlingError as error:
            outcome = replace(outcome, state="failed", stage=stage, reason=error.what)
        except Exception as error:  # noqa: BLE001 - one file must never end the run; the ledger names it
            outcome = replace(outcome, state="failed", stage=stage, reason=f"{type(error).__name__}: {error}")
        else:
            return
        outcome = replace(outcome, num_clips=0, num_units=0)
        seconds = {"read": time.perf_counter() - started}
        yield Unit(source=source, index=index, clips=[], outcome=outcome, seconds=seconds)

    def _decode(self, source: Source, path: str, scan: dict[str, Any], plans: list[_Plan], first: int) -> list[Clip]:
        wants_still = self._options.overlay_text or self._options.caption_model
        request = {
            "clips": [plan.times_s for plan in plans],
            "boxes_px": [plan.box_px for plan in plans],
            "still_px": _STILL_PX if wants_still else 0,
            "width_px": self._spec.width_px,
            "height_px": self._spec.height_px,
            **{name: scan[name] for name in ("zero_s", "invented_times", "rotation_deg", "sample_aspect")},
        }
        try:
            pictures, stills = self._sandbox.frames(path, request)
            lost = "decode: its frames could not be decoded a second time"
        except InputError as error:
            pictures, stills, lost = [None] * len(plans), [None] * len(plans), f"decode: {error.what}"
        clips = []
        for offset, (plan, pixels, still) in enumerate(zip(plans, pictures, stills, strict=True)):
            start_s, end_s = plan.times_s[0], plan.times_s[0] + self._spec.num_frames / self._spec.fps
            clip = Clip(
                clip_id=clip_id(source.name, start_s, end_s),
                index=first + offset,
                start_s=start_s,
                end_s=end_s,
                split=_split(source.name),
                pixels=pixels,  # type: ignore[arg-type] - None only on a failed clip, which no stage opens
                crop_px=plan.box_px,
                still=still,
                failed=lost if pixels is None else None,
            )
            clip.scores |= _of_the_file(scan, clip)
            if self._options.keep_original and clip.failed is None:
                self._cut(path, scan, clip)
            clips.append(clip)
        return clips

    def _cut(self, path: str, scan: dict[str, Any], clip: Clip) -> None:
        """The clip's packets as they are, if its first frame is a key frame (that of a shot nearly always is)."""
        starts = {scan["times_s"][index] for index in scan["key_frames"]}
        if clip.start_s not in starts or scan["invented_times"]:
            return
        try:
            clip.original = self._sandbox.original(path, start_s=clip.start_s, end_s=clip.end_s, zero_s=scan["zero_s"])
        except InputError as error:
            self._uncut.append(error.what)

    def _told(self, outcome: Outcome) -> Outcome:
        if not self._uncut:
            return outcome
        warning = f"{len(self._uncut)} originals could not be kept ({self._uncut[0]})"
        return replace(outcome, warnings=(*outcome.warnings, warning))


def _of_the_file(scan: dict[str, Any], clip: Clip) -> dict[str, float]:
    """Scores that only the source can tell: the pixels are of another size by now."""
    times = scan["times_s"]
    moved = scan["coded_motion"][bisect_left(times, clip.start_s) : bisect_left(times, clip.end_s)]
    known = [value for value in moved if value is not None]
    scores = {"source_width_px": float(scan["width_px"]), "source_height_px": float(scan["height_px"])}
    return scores | ({"coded_motion": float(np.mean(known))} if known else {})


@contextlib.contextmanager
def _local_copy(source: Source, max_bytes: int) -> Iterator[str]:
    """A local path of the file; remote ones are copied to the temporary folder for as long as it is open."""
    if storage.is_local(source.uri):
        path = source.uri.removeprefix("file://")
        size = _readable_size(path)
        if size > max_bytes:
            raise FilteredError(f"the file has {size} bytes, over the limit of {max_bytes}")
        with _utf8(path) as name:
            yield name
        return
    fs, inner = storage.resolve(source.uri)
    with tempfile.TemporaryDirectory(prefix="kling-curate-") as folder:
        path = str(Path(folder) / "source")
        try:
            if fs.size(inner) > max_bytes:
                raise FilteredError(f"the file is over the limit of {max_bytes} bytes")
            fs.get_file(inner, path)
        except FilteredError:
            raise
        except Exception as error:
            raise InputError(f"cannot be fetched ({type(error).__name__}: {error})") from error
        _readable_size(path)
        yield path


@contextlib.contextmanager
def _utf8(path: str) -> Iterator[str]:
    """A path that the decoder can be told: a link to the file where its own name is no text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="kling-curate-") as folder:
            link = Path(folder) / "source"
            link.symlink_to(path)
            yield str(link)
        return
    yield path


def _readable_size(path: str) -> int:
    try:
        size = os.path.getsize(path)  # noqa: PTH202
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})") from None
    if not Path(path).is_file():
        raise FilteredError("not a regular file")
    if size == 0:
        raise InputError("the file is empty (0 bytes)")
    return size


def _warnings(scan: dict[str, Any]) -> tuple[str, ...]:
    """What is wrong with a file that can still be decoded."""
    found = []
    last, declared = scan["times_s"][-1], scan["declared_s"]
    if scan["num_damaged"]:
        found.append(f"{scan['num_damaged']} damaged packets ({scan['damage']})")
    if scan["spoiled"]:
        found.append(f"{len(scan['spoiled'])} of {len(scan['times_s'])} frames show the damage; no clip has one")
    if scan["over_limit"]:
        found.append(f"cut after {len(scan['times_s'])} frames (the limit)")
    elif declared and abs(declared - last) > max(1.0, 0.1 * last):
        found.append(f"the header says {declared:.1f} s, {last:.1f} s can be decoded")
    if num_gaps := len(_gaps(scan["times_s"])):
        found.append(f"{num_gaps} gaps in time; no clip crosses one")
    if scan["num_interlaced"] > len(scan["times_s"]) / 2:
        found.append("interlaced; the first field of each picture was used")
    if scan["invented_times"]:
        found.append("frames without usable time stamps; the average rate was used")
    return tuple(found)


def _interval(times: list[float]) -> float:
    """Usual time between frames; 0 for a single frame."""
    steps = sorted(b - a for a, b in pairwise(times))
    return steps[len(steps) // 2] if steps else 0.0


def _gaps(times: list[float]) -> list[int]:
    """Frames before which so much time is missing that something was lost."""
    most = max(_GAP_S, _GAP_STEPS * _interval(times))
    return [i for i in range(1, len(times)) if times[i] - times[i - 1] > most]


def _shots(scan: dict[str, Any], detector: str, whole: bool) -> list[_Shot]:
    """A clip with ground truth (``whole``) is one shot, and nothing is cut off its pictures."""
    times = scan["times_s"]
    if whole:
        bounds = [(0, len(times))]
    elif detector == "transnet":
        bounds = transnet.shot_bounds(scan["thumbs"])
    else:
        bounds = list(pairwise([0, *(cut for cut in scan["cuts"] if 0 < cut < len(times)), len(times)]))
    if not whole:
        gaps = _gaps(times)
        inside = [sorted({a, *(gap for gap in gaps if a < gap < b), b}) for a, b in bounds]
        bounds = [pair for edges in inside for pair in pairwise(edges)]
    bounds = [whole_part for pair in bounds for whole_part in _sound(pair, scan["spoiled"])]
    interval, samples, shots = _interval(times), np.array(scan["samples"]), []
    for first, end in bounds:
        box = 0, 0, scan["width_px"], scan["height_px"]
        inside = (samples >= first) & (samples < end)
        if not whole and inside.any():
            box = picture_box(scan["rows"][inside], scan["columns"][inside])
        shots.append(_Shot(times_s=times[first:end], interval_s=interval, box_px=box))
    return shots


def _sound(bounds: tuple[int, int], spoiled: list[int]) -> list[tuple[int, int]]:
    """The stretches of frames without damage."""
    inside = [frame for frame in spoiled if bounds[0] <= frame < bounds[1]]
    edges = [bounds[0] - 1, *inside, bounds[1]]
    return [(a + 1, b) for a, b in pairwise(edges) if b > a + 1]


def _clips(shot: _Shot, spec: ClipSpec) -> list[_Plan]:
    """Each clip that fits in the shot, one after the other without overlap."""
    span, step = (spec.num_frames - 1) / spec.fps, spec.num_frames / spec.fps
    clips, start = [], shot.start_s
    while start + span <= shot.start_s + shot.length_s + 1e-6:
        times = [_nearest(shot.times_s, start + i / spec.fps) for i in range(spec.num_frames)]
        clips.append(_Plan(times_s=times, box_px=shot.box_px))
        start += step
    return clips


def _nearest(times: list[float], wanted: float) -> float:
    right = bisect_left(times, wanted)
    near = times[max(0, right - 1) : right + 1]
    return min(near, key=lambda t: (abs(t - wanted), t))


def _refuse(scan: dict[str, Any], plans: list[_Plan], spec: ClipSpec) -> None:
    """Raises FilteredError when the source gives no clip, and says why."""
    times = scan["times_s"]
    if len(times) == 1:
        raise FilteredError("a single frame")
    lost = sum(times[i] - times[i - 1] for i in _gaps(times))
    rate = (len(times) - 1 - len(_gaps(times))) / max(times[-1] - lost, 1e-6)
    if rate < _MIN_RATE * spec.fps:
        raise FilteredError(f"{rate:.1f} frames a second, below the {spec.fps} of the preset")
    if not plans and scan["spoiled"]:
        raise FilteredError("no shot without damage is as long as a clip")
    if not plans:
        need = (spec.num_frames - 1) / spec.fps
        raise FilteredError(f"no shot is as long as a clip ({need:.1f} s)")


def _split(source: str) -> str:
    """By source, so that clips of one video never sit on both sides."""
    value = int.from_bytes(hashlib.sha256(b"split\0" + source.encode()).digest()[:8], "big")
    return "val" if value % _VAL_SHARE == 0 else "train"
