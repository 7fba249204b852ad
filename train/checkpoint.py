"""A training run's own state: OUT/checkpoints/step-00001000/, complete when its complete.json is there.

Every rank writes its part of the optimizer (DeepSpeed's files) and of the average; when all have, the first rank writes
complete.json with every file's size. A kill at any moment leaves the last complete one as it was. Nobody else is asked
which checkpoint is the latest: not Ray, not a file named `latest`.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kling import storage
from kling.errors import CheckpointError, StorageError

from .config import TrainRun
from .ema import ShardedEMA
from .ranks import Ranks
from .watch import LossWatch

_MARK = "complete.json"
# Torch's writer of files tells of a full disk with a RuntimeError in these words.
_WRITER = ("inline_container", "PytorchStreamWriter", "iostream error")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is. ``data_step`` runs ahead of ``step`` by what was rolled back over."""

    step: int = 0
    data_step: int = 0
    roll_backs: int = 0
    watch: dict | None = None


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A complete checkpoint."""

    uri: str
    progress: Progress
    num_ranks: int
    zero_stage: int
    files: dict[str, int]  # name: bytes


def latest(out: str) -> Saved | None:
    """The newest complete checkpoint whose files are all there with the right sizes."""
    root = storage.join(out, "checkpoints")
    if not storage.exists(root):
        return None
    files = storage.list_files(root)
    for mark in sorted((f for f in files if f.endswith("/" + _MARK)), reverse=True):
        raw = json.loads(storage.read_bytes(mark))
        uri = mark[: -len(_MARK) - 1]
        progress = Progress(**raw.pop("progress"))
        saved = Saved(uri=uri, progress=progress, **raw)
        if all(_size(storage.join(uri, name)) == size for name, size in saved.files.items()):
            return saved
        print(f"checkpoint {uri} is damaged (a file is missing or cut short): using the one before")
    return None


def save(
    run: TrainRun, engine, ema: ShardedEMA, progress: Progress, ranks: Ranks, *, scratch: Path, zero_stage: int
) -> str:
    """Write a checkpoint; all ranks call it. Returns its URI.

    Raises:
        StorageError: some rank has not enough space, and nothing was written on any; or a disk filled while writing,
            and what was written does not count.
    """
    name = f"step-{progress.step:08d}"
    uri = storage.join(run.out, "checkpoints", name)
    local = Path(uri) if storage.is_local(uri) else scratch / "upload" / name
    _check_space(local.parent, engine, ranks)
    if _leads(uri, ranks):
        shutil.rmtree(local, ignore_errors=True)  # what a killed attempt left
        local.mkdir(parents=True, exist_ok=True)
    ranks.barrier()
    try:
        engine.save_checkpoint(str(local), tag="zero", save_latest=False)
        torch.save(ema.shadow, local / f"ema-{ranks.rank:05d}.pt")
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _WRITER):
            raise
        free = shutil.disk_usage(local).free >> 20
        raise StorageError(
            f"cannot write the checkpoint ({str(error).splitlines()[0]}); {free} MiB free",
            where=str(local),
            fix="Free some space and run it again; the last complete checkpoint is untouched",
        ) from error
    ranks.barrier()
    if not storage.is_local(uri):
        if ranks.local_rank == 0:
            fs, path = storage.resolve(uri)
            fs.put(str(local) + "/", path, recursive=True)
            shutil.rmtree(local)
        ranks.barrier()
    if ranks.rank == 0:
        files = {f[len(uri) + 1 :]: _size(f) for f in storage.list_files(uri)}
        content = {"progress": asdict(progress), "num_ranks": ranks.world, "zero_stage": zero_stage, "files": files}
        storage.write_bytes(storage.join(uri, _MARK), json.dumps(content).encode())
        _forget(run.out, run.keep_checkpoints)
    ranks.barrier()
    return uri


def load(saved: Saved, engine, ema: ShardedEMA, watch: LossWatch, ranks: Ranks, *, scratch: Path) -> Progress:
    """Fill engine, average and watch, all ranks together. Another number of ranks than wrote it is fine."""
    local = _fetch(saved, ranks, scratch)
    tag = "zero"
    if saved.num_ranks != ranks.world:
        if any(group.get("use_muon") for group in engine.optimizer.param_groups):
            raise CheckpointError(
                f"a run with Muon continues on the {saved.num_ranks} ranks that wrote it, not on {ranks.world}",
                where=saved.uri,
                fix="Use that number, or start anew from its weights (--start-from)",
            )
        tag = "universal"
        if _leads(saved.uri, ranks):
            _convert(local)
        ranks.barrier()
    engine._config.load_universal_checkpoint = tag == "universal"
    hyperparameters = [{k: v for k, v in g.items() if k != "params"} for g in engine.optimizer.param_groups]
    engine.load_checkpoint(str(local), tag=tag)
    if tag == "universal":
        _undo_merging(engine.optimizer, hyperparameters)
    parts = [torch.load(local / f"ema-{r:05d}.pt", weights_only=True) for r in range(saved.num_ranks)]
    whole = {name: torch.cat([part[name] for part in parts]) for name in ema.shadow}
    ema.load(whole)
    if saved.progress.watch:
        watch.load(saved.progress.watch)
    return saved.progress


def _convert(local: Path) -> None:
    """DeepSpeed's universal format: one folder a parameter, which any number of ranks can read."""
    if not (local / "universal").exists():
        shutil.rmtree(local / "universal.part", ignore_errors=True)
        module = "deepspeed.checkpoint.ds_to_universal"
        arguments = ["--input_folder", local / "zero", "--output_folder", local / "universal.part"]
        workers = ["--num_extract_workers", 1, "--num_merge_workers", 1, "--inject_missing_state"]
        command = [sys.executable, "-m", module, *map(str, arguments + workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckpointError(
                "the checkpoint cannot be cut for another number of ranks",
                where=str(local),
                fix=f"Continue on the same number. DeepSpeed said: {done.stderr[-300:]}",
            )
        (local / "universal.part").rename(local / "universal")


def _undo_merging(optimizer, hyperparameters: list[dict]) -> None:
    """Give each parameter group its own again, after DeepSpeed has read its universal format (0.19, ZeRO-3).

    It gives all groups the first one's hyperparameters, so that vectors decay as matrices do; and one tensor to all as
    their count of steps, so that each group's step moves every group's bias correction.
    """
    for group, own in zip(optimizer.param_groups, hyperparameters, strict=True):
        group.update(own)
    base = getattr(optimizer, "optimizer", optimizer)
    for state in base.state.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()


def _leads(uri: str, ranks: Ranks) -> bool:
    """Whether this rank prepares the local folder: a local URI is one place for all nodes, a copy of a remote one is
    not."""
    return ranks.rank == 0 if storage.is_local(uri) else ranks.local_rank == 0


def _fetch(saved: Saved, ranks: Ranks, scratch: Path) -> Path:
    """The checkpoint as a local folder; one rank of each node brings it."""
    if storage.is_local(saved.uri):
        return Path(saved.uri)
    local = scratch / "download" / saved.uri.rsplit("/", 1)[1]
    if ranks.local_rank == 0:
        shutil.rmtree(local, ignore_errors=True)
        fs, path = storage.resolve(saved.uri)
        fs.get(path.rstrip("/") + "/", str(local) + "/", recursive=True)
    ranks.barrier()
    return local


def _check_space(folder: Path, engine, ranks: Ranks) -> None:
    """Parameters, two moments and the average in float32, over ranks; and a tenth more."""
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters())
    needed = int(1.1 * 4 * 5 * size)
    free = shutil.disk_usage(folder).free
    if ranks.any(free < needed):
        raise StorageError(
            f"no space for a checkpoint: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} free",
            where=str(folder),
            fix="Free some space; the last complete checkpoint is untouched",
        )


def _forget(out: str, keep: int) -> None:
    """Delete all but the newest complete checkpoints, and incomplete ones older than them."""
    root = storage.join(out, "checkpoints")
    files = storage.list_files(root)
    names = sorted({f[len(root) + 1 :].split("/")[0] for f in files if "/step-" in f})
    complete = [n for n in names if storage.join(root, n, _MARK) in files]
    fs, path = storage.resolve(root)
    for name in names:
        if name not in complete[-keep:] and name < complete[-1]:
            fs.rm(f"{path}/{name}", recursive=True)


def _size(uri: str) -> int:
    fs, path = storage.resolve(uri)
    return int(fs.size(path)) if fs.exists(path) else -1
