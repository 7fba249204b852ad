"""`python -m data speed FILES`: clips a second of curation and of each of its stages, with 1 worker and with 2.

Each run curates the same files into a folder that is thrown away, on a local cluster of as many cores as workers
(at least two: a reader and a writer must fit). The cluster's start is not counted. A stage is timed by the clock in the
process that works at it, so other jobs on the machine count: measure on a quiet one.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from data.curate import packaged_weights
from data.stages.s1_list import list_sources
from data.stages.s7_commit import read_seconds
from kling.errors import InputError
from kling.presets import get_preset

_STAGES = ("read", "truth", "score", "label", "caption", "encode")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Clips a second of each stage and of whole runs."""

    files: tyro.conf.Positional[str]
    """Folder of videos."""
    preset: str = "tiny"
    workers: tuple[int, ...] = (1, 2)
    rounds: int = 2
    """Runs with each number of workers, by turns."""
    encode: bool = True


def command(arguments: list[str]) -> int:
    """`python -m data speed`."""
    options = tyro.cli(Speed, args=arguments, prog="python -m data speed")
    from data.curate import start_ray
    from data.pipeline import Job, curate

    list_sources((options.files,))  # what is wrong with it is told before a cluster is started
    preset = get_preset(options.preset)
    weights = packaged_weights(preset.name) if options.encode else None
    start_ray(num_cpus=max(2, *options.workers))
    console = Console(width=160)
    console.print("| workers | clips | clips a second, whole run | " + " | ".join(_STAGES) + " |", highlight=False)
    console.print("|---|---|---|" + "---|" * len(_STAGES), highlight=False)
    for _ in range(options.rounds):
        for count in options.workers:
            folder = tempfile.mkdtemp(prefix="kling-speed-")
            try:
                job = Job(
                    preset=preset, inputs=(options.files,), dataset=str(Path(folder) / "set"), weights=weights,
                    encoder="measured" if weights else "", num_workers=count,
                )  # fmt: skip
                started = time.perf_counter()
                manifest = curate(job, lambda done, total: None)
                spent, clips = time.perf_counter() - started, manifest.counts["rows"]
                if not clips:
                    raise InputError("no clip came out", where=options.files, fix="Give sound videos")
                stages = read_seconds(job.dataset)
            finally:
                shutil.rmtree(folder)
            each = [f"{clips / stages[name]:.1f}" if stages.get(name) else "" for name in _STAGES]
            row = f"| {count} | {clips} | {clips / spent:.2f} | {' | '.join(each)} |"
            console.print(row, highlight=False, markup=False)
    return 0
