"""`python -m kling.bench framing`: what of the benchmark's scenes stays in the picture as the planned camera sees it.

Of each (object, frame) pair: is the object's box wholly in the picture, is its centre, is any of it? Counted on the
plans that are made from the prompts, 2 s at 8 frames a second, square. An object that nothing happens to and that no
event needs counts like the others.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from kling.bench.page import replace_table
from kling.bench.prompts import PACKAGED, load
from kling.scene.direct import direct
from kling.scene.plan import SceneTrack


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how well cameras keep things in the picture."""

    prompts: str = PACKAGED
    number: int = 0  # of prompts; 0: all
    aspect: float = 1.0
    out: Path | None = None  # docs/benchmarks/camera.md: the table is put into it


def command(arguments: list[str]) -> int:
    """`python -m kling.bench framing`."""
    options = tyro.cli(Options, args=arguments, prog="python -m kling.bench framing", description=Options.__doc__)
    table = "\n".join(measure(options))
    print(table)
    if options.out is not None:
        replace_table(options.out, "python -m kling.bench framing", "framing", table)
    return 0


def measure(options: Options) -> list[str]:
    """The rows: all scenes, by number of objects, by camera move, and with a move chosen where none was said."""
    seen: dict[str, list[np.ndarray]] = defaultdict(list)
    for prompt in load(options.prompts, options.number):
        kept = in_picture(direct(prompt.prompt, seed=prompt.plan_seed, aspect=options.aspect).track)
        rows = [f"{kind}: {name}" for kind, name in prompt.groups if kind in ("objects", "camera")]
        for row in ("all", *rows):
            seen[row].append(kept)
        if not prompt.graph.camera:
            chosen = direct(prompt.prompt, seed=prompt.plan_seed, aspect=options.aspect, auto_camera=True)
            seen["camera: chosen where unsaid"].append(in_picture(chosen.track))
    lines = ["| scenes | number | wholly in the picture | centre in it | any of it |", "|---|---|---|---|---|"]
    for row in sorted(seen):
        shares = np.concatenate(seen[row]).mean(axis=0)
        lines.append(f"| {row} | {len(seen[row])} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    return lines


def in_picture(track: SceneTrack) -> np.ndarray:
    """(objects * frames, 3) truth values: wholly in the picture, centre in it, any of it."""
    kept = []
    for thing in track.objects:
        for box in thing.box:
            if box is None:  # behind the camera
                kept.append((False, False, False))
                continue
            x0, y0, x1, y1 = box
            centre = 0 <= (x0 + x1) / 2 <= 1 and 0 <= (y0 + y1) / 2 <= 1
            kept.append((min(x0, y0) >= 0 and max(x1, y1) <= 1, centre, x0 < 1 and y0 < 1 and x1 > 0 and y1 > 0))
    return np.array(kept, dtype=bool).reshape(-1, 3)
