"""`python -m data study CLIPS`: what the temporal measures say about clean clips, and about clips with planted faults.

Clean clips are the playground's (or anybody's) as they are. A jump is the clip turned upside down from a drawn frame
on; a drift is light and colour that wander away evenly. Places and directions are drawn with a fixed seed.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from scipy.stats import beta

from kling import storage
from kling.errors import InputError
from kling.media.video import read_frames
from kling.quality import temporal
from kling.shapes import Frames

_DRIFTS = (6.0, 12.0, 24.0)  # grey levels over the clip


@dataclass(frozen=True, kw_only=True)
class Study:
    """False alarms on clean clips and what is found of planted jumps and drifts."""

    clips: tyro.conf.Positional[str]
    """Folder of clean clips (mp4)."""
    num_clips: int = 200
    num_planted: int = 60
    """Of these clips, faults are planted into so many."""


def command(arguments: list[str]) -> int:
    """`python -m data study`."""
    options = tyro.cli(Study, args=arguments, prog="python -m data study")
    files = [uri for uri in storage.list_files(options.clips) if uri.endswith(".mp4")][: options.num_clips]
    if not files:
        raise InputError("no clips to study", where=options.clips, fix="Make some: python -m data playground")
    cv2.setNumThreads(1)
    rng, hits = np.random.default_rng(0), dict[str, list[bool]]()
    for number, uri in enumerate(track(files, description="studying", transient=True)):
        frames = read_frames(storage.read_bytes(uri))[0]
        for name, hit in study(frames, rng, planted=number < options.num_planted).items():
            hits.setdefault(name, []).append(hit)
    console = Console()
    for name, found in hits.items():
        console.print(f"{name:<48} {told(found)}", highlight=False)
    return 0


def study(frames: Frames, rng: np.random.Generator, *, planted: bool) -> dict[str, bool]:
    """One clip: what was found, by the name of the line in the table."""
    clean = temporal.measure(frames)
    seen = {
        "clean: drift called significant": clean.drift.significant,
        "clean: p below 0.05": clean.drift.p_value < 0.05,
        "clean: a jump called": bool(clean.critical),
    }
    if not planted:
        return seen
    place = int(rng.integers(2, len(frames) - 2))
    jumped = np.concatenate([frames[:place], frames[place:, ::-1, ::-1]])
    found = temporal.measure(jumped).critical
    seen["planted jump: found at its frame"] = place in found
    seen["planted jump: and nothing else"] = found == (place,)
    direction = rng.choice([-1.0, 1.0]) * np.array([1.0, *rng.uniform(-1, 1, 2)])
    for levels in _DRIFTS:
        ramp = np.linspace(0, levels, len(frames))[:, None, None, None] * direction
        drifted = np.clip(frames + ramp, 0, 255).astype(np.uint8)
        seen[f"planted drift of {levels:g} grey levels: significant"] = temporal.drift(drifted).significant
    return seen


def told(found: list[bool]) -> str:
    """ "3 of 60 (5.0 %, 95 % interval 1.0 to 13.9)": Clopper and Pearson 1934."""
    hits, count = sum(found), len(found)
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return f"{hits} of {count} ({100 * hits / count:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f})"
