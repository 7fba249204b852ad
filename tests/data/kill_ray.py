"""Kill drivers, workers and decoders of curation under Ray at random moments; the result is the undisturbed one.

    python -m tests.data.kill_ray FOLDER [SECONDS]

Each round curates the same files into a new data set. Now and then, after a drawn while, one process gets SIGKILL: the
driver, a worker at one of the stages, or the process that decodes. A killed driver is started again. tests/data/
kill_loop.py does the same without Ray, so that kills fall within writes.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import ray

from tests.data.raw_files import moving, write
from tests.data.test_curate import contents

ROOT = Path(__file__).parents[2]
_MOST_KILLS = 6  # a round
_STAGES = {"_Read": "a reader", "_measure": "a scorer", "_Finish": "a writer", "data.stages.decoder": "a decoder"}


def raw(folder: Path) -> Path:
    """Eight files, some of them bad."""
    folder.mkdir(parents=True)
    for n in range(5):
        write(folder / f"v{n}.mp4", moving(60 + 17 * n))
    (folder / "empty.mp4").touch()
    (folder / "words.mp4").write_text("no video\n" * 100)
    write(folder / "short.mp4", moving(5))
    return folder


def started(inputs: Path, dataset: Path, address: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "data",
        "curate",
        "tiny",
        "--input",
        str(inputs),
        "--out",
        str(dataset),
        "--no-encode",
    ]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "RAY_ADDRESS": address}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def victims(driver: subprocess.Popen) -> list[tuple[str, int]]:
    """What may be killed now: name and process id. Of our own cluster only."""
    found = [("a driver", driver.pid)]
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:  # it has just ended
            continue
        found += [(name, process.pid) for mark, name in _STAGES.items() if mark in title and process.pid != driver.pid]
    return found


def one_round(inputs: Path, dataset: Path, address: str, draw: random.Random, killed: Counter) -> int:
    """Exit code of the driver that came to its end."""
    driver, kills = started(inputs, dataset, address), draw.randint(1, _MOST_KILLS)
    while True:
        wait = draw.uniform(0.5, 15)
        try:
            code = driver.wait(timeout=wait if kills else None)
        except subprocess.TimeoutExpired:
            # Each kind is as likely, however many processes it has.
            by_kind = dict(draw.sample(there := victims(driver), len(there)))
            kind = draw.choice(sorted(by_kind))
            try:
                os.kill(by_kind[kind], signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed[kind] += 1
            kills -= 1
            continue
        if code != -signal.SIGKILL:
            if code:
                sys.stderr.write((driver.stderr.read() if driver.stderr else b"").decode())
            return code
        driver = started(inputs, dataset, address)


def main() -> int:
    """Exit code 1 if one data set differs."""
    base, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 300.0
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(2**31)
    draw, killed, same = random.Random(seed), Counter[str](), 0
    inputs = raw(base / "in")
    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    address = ray.get_runtime_context().gcs_address
    if started(inputs, base / "whole", address).wait():
        return 1
    wanted, begun = contents(base / "whole"), time.monotonic()
    while time.monotonic() < begun + seconds:
        dataset = base / f"killed-{same}"
        code = one_round(inputs, dataset, address, draw, killed)
        if code or contents(dataset) != wanted:
            print(f"differs (exit {code}, seed {seed}): {dataset}")
            return 1
        shutil.rmtree(dataset)
        same += 1
        told = ", ".join(f"{count} times {kind}" for kind, count in sorted(killed.items()))
        print(f"killed {told}; {same} data sets, byte for byte the undisturbed one (seed {seed})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
