"""Before any worker starts: one clear error for what cannot work."""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from kling import storage
from kling.errors import CheckpointError, ConfigError, InputError
from kling.model.checkpoint import read_card
from kling.presets import Preset
from kling.shards import Manifest, Shard, read_manifest

from . import checkpoint
from .batches import bucket_batch_size, check_divides, clip_tokens
from .cache import COLUMNS
from .config import TrainRun

_PACKAGED = Path(__file__).parent.parent / "kling" / "weights"
# What makes a run the run it is: continuing with another value would be a different one.
_FIXED = ("preset", "data", "batch_size", "seed", "objective", "ema", "start_from")


def check_run(run: TrainRun, preset: Preset) -> str:
    """Everything that can be known now. Returns the URI of the encoders' weights.

    Raises:
        ConfigError, InputError, CheckpointError: what cannot work, where, and what to do.
    """
    manifest = read_manifest(run.data)
    if manifest.preset != preset.name:
        raise InputError(
            f"this data set was made for preset {manifest.preset}, not {preset.name}",
            where=run.data,
            fix=f"Train {manifest.preset}, or curate with {preset.name}",
        )
    for split in ("train", "val") if run.validate_every else ("train",):
        if not sum(shard.num_rows for shard in manifest.select(split)):
            fix = "Curate more clips" if split == "train" else "Curate more clips, or pass --validate-every 0"
            raise InputError(f"the {split} split is empty", where=run.data, fix=fix)
    for shard in manifest.shards:
        _check_columns(run.data, shard)
    for bucket in sorted({shard.bucket for shard in manifest.select("train")}):
        size = bucket_batch_size(run.batch_size, clip_tokens(preset), _bucket_tokens(bucket, preset))
        check_divides(size, run.data_ranks, bucket, run.micro_batches)
    encoders = _encoders(run, preset, manifest)
    if run.start_from is not None:
        _check_part(run.start_from, "dit", asdict(preset.dit))
    _check_continues(run)
    return encoders


def _check_columns(data: str, shard: Shard) -> None:
    where = storage.join(data, shard.path)
    fs, path = storage.resolve(where)
    try:
        with fs.open(path, "rb") as file:
            names = set(pq.read_schema(file).names)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the shard ({error})", where=where, fix="Curate again") from error
    if missing := sorted(set(COLUMNS) - names):
        raise InputError(f"the shard lacks columns {missing}", where=where, fix="Curate again")


def _bucket_tokens(bucket: str, preset: Preset) -> int:
    width, height, frames = map(int, bucket.split("x"))
    stride = preset.vae.stride_px
    return math.prod((preset.vae.latent_frames(frames), height // stride, width // stride))


def _encoders(run: TrainRun, preset: Preset, manifest: Manifest) -> str:
    if not manifest.encoder:
        raise InputError("this data set holds no latents", where=run.data, fix="Curate without --no-encode")
    uri = run.weights or str(_PACKAGED / preset.name)
    parts = read_card(uri).parts
    if missing := sorted({"vae", "text"} - parts.keys()):
        raise CheckpointError(
            f"the weights lack {missing}", where=uri, fix="Give those that encoded the data: --weights"
        )
    sums = [file.sha256 for name in ("vae", "text") for file in parts[name].files]
    if hashlib.sha256("".join(sums).encode()).hexdigest() != manifest.encoder:
        raise CheckpointError(
            "the data was encoded with other weights than these",
            where=uri,
            fix="Pass those with --weights, or curate again with these",
        )
    return uri


def _check_part(uri: str, name: str, expected: dict) -> None:
    part = read_card(uri).parts.get(name)
    if part is None:
        raise CheckpointError(f"the weights hold no {name}", where=uri)
    for field in ("num_layers", "num_heads", "head_dim", "mlp_dim", "in_channels", "out_channels", "text_dim"):
        if part.config.get(field) != expected[field]:
            raise CheckpointError(
                f"a checkpoint of another model: its {field} is {part.config.get(field)}, not {expected[field]}",
                where=uri,
            )


def _same(before: object, now: object) -> bool:
    """Settings of which the earlier version did not know are no difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(_same(value, now.get(name)) for name, value in before.items())
    return before == now


def _check_continues(run: TrainRun) -> None:
    """An earlier run in the same place must be the same run."""
    saved, record = checkpoint.latest(run.out), storage.join(run.out, "run.json")
    if saved is None or not storage.exists(record):
        return
    before, now = json.loads(storage.read_bytes(record)), json.loads(json.dumps(asdict(run)))
    for name in _FIXED:
        if not _same(before.get(name), now[name]):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                f"the run in this folder has another {name}",
                where=f"{run.out}: {before.get(name)}, now {now[name]}",
                fix=f"Give it the same {flag} to continue it, or another --out to start a new one",
            )
    if saved.progress.step > run.steps:
        raise ConfigError(
            f"this run is already at step {saved.progress.step}", where=run.out, fix="Give more --steps to continue it"
        )
