"""Ranks without Ray: forks a process group for each job of a JSON list, in one interpreter that has imported all once.

`launch(jobs)` runs this file; a job is {"run": fields of TrainRun, "world": ranks, "kill": {"rank", "after_step"}}. The
kill may name a "file" to wait for in place of a step; "scratch" is the local folder of a run whose output is elsewhere.
"whole_preset" trains `tiny` itself in place of the small model.
"""

import contextlib
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def launch(jobs: list[dict], *, timeout_s: float = 240, **variables: str) -> None:
    """Run the jobs one after the other. Raises AssertionError when one fails that was not to be killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, __file__, json.dumps(jobs)]
    # Into a file and a session of its own: ranks that hang would hold a pipe open, and outlive a killed launcher.
    with tempfile.TemporaryFile("w+") as said:
        group = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            code = group.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(group.pid, signal.SIGABRT)  # each rank tells where it stands (faulthandler)
            time.sleep(2)
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group.pid, signal.SIGKILL)
            group.wait()
        said.seek(0)
        told = said.read()
    assert code is not None, f"not done within {timeout_s:.0f} s: {told[-6000:]}"
    assert code == 0, told[-6000:]


def losses(out: str | Path) -> dict[int, float]:
    """step: loss, of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def _rank(job: dict, rank: int, rendezvous: str) -> None:
    import torch

    from kling.presets import get_preset
    from tests.train.conftest import SMALL
    from train.config import ObjectiveConfig, OptimizerConfig, TrainRun
    from train.loop import train
    from train.ranks import Ranks

    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # DeepSpeed asks for it
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=job["world"])
    fields = dict(job["run"])
    fields["objective"] = ObjectiveConfig(**fields.pop("objective", {}))
    fields["optimizer"] = OptimizerConfig(**fields.pop("optimizer", {}))
    run = TrainRun(num_workers=job["world"], **fields)
    ranks = Ranks(
        rank=rank,
        world=job["world"],
        local_rank=rank,
        device=torch.device("cpu"),
        sequence_parallel=run.sequence_parallel,
    )
    train(
        run,
        get_preset("tiny") if job.get("whole_preset") else SMALL,
        ranks,
        scratch=Path(job.get("scratch") or run.out),
        encoders=str(run.weights),
        report=lambda record, saved: None,
    )


def _run(job: dict) -> None:
    context = multiprocessing.get_context("fork")
    rendezvous = tempfile.mktemp()
    ranks = [context.Process(target=_rank, args=(job, rank, rendezvous)) for rank in range(job["world"])]
    for process in ranks:
        process.start()
    if kill := job.get("kill"):
        while not _is_time(job, kill):
            assert all(process.is_alive() for process in ranks), "ended before it was to be killed"
            time.sleep(0.005)
        os.kill(ranks[kill["rank"]].pid, signal.SIGKILL)
        ranks[kill["rank"]].join()
        for process in ranks:
            process.kill()
    for process in ranks:
        process.join()
    if not kill:
        codes = [process.exitcode for process in ranks]
        assert not any(codes), f"exit codes {codes} of {job}"


def _is_time(job: dict, kill: dict) -> bool:
    if "file" in kill:
        return Path(kill["file"]).exists()
    metrics = Path(job["run"]["out"], "metrics.jsonl")
    return metrics.exists() and len(metrics.read_text().splitlines()) >= kill["after_step"]


if __name__ == "__main__":
    faulthandler.enable(all_threads=False)
    # Once, before forking: DeepSpeed imports its Muon, and with it torch's compiler, in every rank that has not.
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401

    import train.loop  # noqa: F401

    for given in json.loads(sys.argv[1]):
        _run(given)
