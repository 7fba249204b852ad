"""A small model and a small data set with random latents, written through the real shard format."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kling import shards
from kling.model.checkpoint import read_card, save_part
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import Preset, get_preset

from .launch import launch

# A DiT of 0.3M parameters on the tiny preset's clip: a step takes milliseconds.
SMALL = replace(
    get_preset("tiny"),
    # It says the velocity itself: made of clean latents, a step's loss depends on its times more than on the weights.
    dit=replace(
        get_preset("tiny").dit,
        patch=(1, 2, 2),
        num_layers=2,
        num_heads=2,
        head_dim=24,
        mlp_dim=96,
        control_width=32,
        predicts="velocity",
    ),
)

DISTURBED = {"steps": 16, "checkpoint_every": 4, "keep_checkpoints": 10}  # what the runs of test_resume.py share


@pytest.fixture(scope="session")
def small() -> Preset:
    return SMALL


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights folder with an untrained VAE and text encoder."""
    folder = str(tmp_path_factory.mktemp("encoders"))
    torch.manual_seed(0)
    save_part(folder, "vae", VideoVAE(SMALL.vae), preset="tiny", note="untrained")
    save_part(folder, "text", TextEncoder(SMALL.text), preset="tiny", note="untrained")
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, encoders: str) -> str:
    """37 training clips in two buckets and 5 held-out ones: nothing divides anything."""
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, encoders, {("train", "64x64x17"): 29, ("train", "96x64x17"): 8, ("val", "64x64x17"): 5})
    return str(folder)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, dataset: str, encoders: str) -> Path:
    """The run that every disturbed one is compared with: 16 steps on 2 ranks, a checkpoint every 4."""
    out = tmp_path_factory.mktemp("undisturbed")
    launch([make_job(out, dataset, encoders, 2, **DISTURBED)])
    return out


def make_job(out: Path | str, dataset: str, encoders: str, world: int, **changed) -> dict:
    """For `launch`: 50 steps without checkpoints, unless changed."""
    outside = {name: changed.pop(name, None) for name in ("kill", "scratch")}
    run = {
        "preset": "tiny",
        "data": dataset,
        "out": str(out),
        "weights": encoders,
        "steps": 50,
        "batch_size": 8,
        "checkpoint_every": 1000,
        "validate_every": 0,
        "optimizer": {"warmup": 5},
        **changed,
    }
    return {"run": run, "world": world, **outside}


def write_dataset(folder: Path, encoders: str, counts: dict[tuple[str, str], int]) -> None:
    """Shards of random latents; every second clip has a plan and a track."""
    written = []
    for (split, bucket), count in counts.items():
        rows = [make_row(split, bucket, i) for i in range(count)]
        path = f"shards/{split}/{bucket}/part-00000.parquet"
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=shards.SCHEMA), target)
        size, digest = target.stat().st_size, hashlib.sha256(target.read_bytes()).hexdigest()
        written.append(
            shards.Shard(path=path, split=split, bucket=bucket, num_rows=count, num_bytes=size, sha256=digest)
        )
    parts = read_card(encoders).parts
    sums = "".join(file.sha256 for name in ("vae", "text") for file in parts[name].files)
    encoder = hashlib.sha256(sums.encode()).hexdigest()
    shards.write_manifest(
        str(folder), shards.Manifest(preset="tiny", encoder=encoder, counts={}, shards=tuple(written))
    )


def make_row(split: str, bucket: str, index: int) -> dict:
    width, height, frames = map(int, bucket.split("x"))
    rng = np.random.default_rng((index, width, len(split)))
    stride = SMALL.vae.stride_px
    shape = (SMALL.vae.z_dim, SMALL.vae.latent_frames(frames), height // stride, width // stride)
    lengths = [int(n) for n in rng.integers(3, 12, size=2)]
    states = [rng.standard_normal((n, SMALL.text.width)).astype(np.float16).tobytes() for n in lengths]
    plan, track = _plan(frames) if index % 2 else (None, None)
    return {
        "clip_id": hashlib.sha256(f"{split}{bucket}{index}".encode()).hexdigest(),
        "source": f"{index}.mp4",
        "start_s": 0.0,
        "end_s": 2.0,
        "split": split,
        "bucket": bucket,
        "width_px": width,
        "height_px": height,
        "num_frames": frames,
        "fps": 8.0,
        "video": f"clips/{index}.mp4",
        "captions": [{"text": "a ball", "language": "en", "family": "template"}] * 2,
        "latents": rng.standard_normal(shape).astype(np.float16).tobytes(),
        "latents_shape": list(shape),
        "text_states": states,
        "text_tokens": lengths,
        "scores": [],
        "labels": "{}",
        "plan": plan,
        "track": track,
    }


def _plan(frames: int) -> tuple[str, str]:
    key = {"time_s": 0.0, "position_m": (0, -3, 1), "quaternion": (1, 0, 0, 0), "fov_y_deg": 50}
    thing = {
        "id": "o1", "phrase": "red ball", "shape": "ball", "proxy": "ball", "half_size_m": (0.2,) * 3, "mass_kg": 1,
        "friction": 0.5, "restitution": 0.5, "position_m": (0, 0, 0.2),
    }  # fmt: skip
    pose = [[1, 0, 0, 0], [0, 0, 1, -3], [0, -1, 0, 1], [0, 0, 0, 1]]
    zeros = [(0.0, 0.0, 0.0)] * frames
    track = {
        "fps": 8.0,
        "objects": [{
            "id": "o1", "position_m": zeros, "quaternion": [(1.0, 0, 0, 0)] * frames, "velocity_m_s": zeros,
            "angular_velocity_rad_s": zeros, "box": [(0.3, 0.3, 0.3 + 0.02 * i, 0.6) for i in range(frames)],
            "depth_m": [3.0] * frames, "visibility": [1.0] * frames,
        }],
        "camera": {"camera_to_world": [pose] * frames, "fov_y_deg": [50.0] * frames},
    }  # fmt: skip
    duration = {"duration_s": (frames - 1) / 8, "fps": 8.0}
    return json.dumps({"objects": [thing], "camera": {"keys": [key]}, **duration}), json.dumps(track)
