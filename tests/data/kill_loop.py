"""Kill a process that commits units and writes shards at random moments; the result is that of an undisturbed run.

    python -m tests.data.kill_loop FOLDER [SECONDS]

Without Ray, so that a kill falls within writes and not within the start of workers (test_curate.py kills those).
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data.pipeline import Job, _same_recipe
from data.stages.s1_list import list_sources
from data.stages.s2_read import Reader
from data.stages.s7_commit import commit_unit, finished_sources
from data.stages.s8_shard import write_shards
from kling.presets import get_preset
from tests.data.raw_files import moving, write
from tests.data.test_curate import contents


def prepared(folder: Path) -> Callable[[Path], None]:
    """Five files, decoded once; what is returned commits them to a data set."""
    folder.mkdir(parents=True)
    for n in range(3):
        write(folder / f"v{n}.mp4", moving(36 + n))
    (folder / "empty.mp4").touch()
    write(folder / "short.mp4", moving(5))
    job = Job(preset=get_preset("tiny"), inputs=(str(folder),), dataset="", weights=None)
    sources, reader = list_sources(job.inputs), Reader(job.preset.clip, job.limits)
    units = {source.name: list(reader(source)) for source in sources}

    def run(dataset: Path) -> None:
        _same_recipe(str(dataset), job.recipe)
        finished = finished_sources(str(dataset), sources)
        for source in sources:
            for unit in units[source.name] if source.name not in finished else []:
                commit_unit(unit, str(dataset), job.recipe)
        write_shards(str(dataset), sources, job.recipe)

    return run


def started(run: Callable[[Path], None], dataset: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run(dataset)
        status = 0
    finally:  # never back into the parent's code
        os._exit(status)


def main() -> int:
    """Exit code 1 if one data set differs."""
    base, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    run, draw = prepared(base / "in"), random.Random()
    begun = time.monotonic()
    os.waitpid(started(run, base / "whole"), 0)
    whole, wanted = time.monotonic() - begun, contents(base / "whole")
    same = killed = halves = 0
    while time.monotonic() < begun + seconds:
        dataset = base / "killed"
        for _ in range(draw.randint(1, 4)):
            pid = started(run, dataset)
            time.sleep(draw.uniform(0, 1.1) * whole)
            os.kill(pid, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
            halves += len(list(dataset.rglob("*.part")))
        _, status = os.waitpid(started(run, dataset), 0)
        if status or contents(dataset) != wanted:
            print(f"differs: {dataset}")
            return 1
        shutil.rmtree(dataset)
        same += 1
    print(f"{killed} kills, {halves} halves of files left behind; {same} data sets, byte for byte the undisturbed one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
