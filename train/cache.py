"""One split of a data set as flat local files, mapped into memory: every rank of a node reads the same pages.

Parquet rows are read once, in order; training wants single clips at random, thousands of times. Control maps are
painted here too, from plan and track, so that no training step waits for them.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kling import conditioning, shards, storage
from kling.errors import InputError
from kling.model.checkpoint import load_part
from kling.model.config import DiTConfig
from kling.model.controls import FLOOR_NUMBERS, FLOOR_POINTS
from kling.model.text import TextEncoder
from kling.presets import Preset
from kling.scene.control import ControlArrays
from kling.scene.plan import ScenePlan, SceneTrack

from .ranks import Ranks

COLUMNS = ["clip_id", "bucket", "width_px", "height_px", "num_frames", "fps", "captions", "latents", "latents_shape",
           "text_states", "text_tokens", "plan", "track"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Clips of one size, in the order of their ids. Arrays are mapped files; n clips, k object slots, m maps."""

    name: str
    clip_ids: list[str]
    latents: np.ndarray  # n c f h w float16
    controls: dict[str, np.ndarray]  # n ... f h w float16 of camera, flow, floor, objects; zero without a plan
    phrases: np.ndarray  # n k int32, rows of Split.phrases
    fps: np.ndarray  # n float32
    captions: list[list[tuple[int, int]]]  # of each clip: (first row, number of rows) in Split.text
    rows: np.ndarray  # n: where the clip lies in the files

    def __len__(self) -> int:
        return len(self.clip_ids)


@dataclass(frozen=True, kw_only=True)
class Split:
    """All buckets of a split, and its text."""

    buckets: tuple[Bucket, ...]  # sorted by name
    text: np.ndarray  # l d float16: the states of all captions, one behind the other
    empty_text: np.ndarray  # l d float32: the empty prompt
    phrases: np.ndarray  # p d float32: the mean state of each object phrase; row 0 is zero (an empty slot)


def open_split(data: str, split: str, preset: Preset, weights: str, folder: Path, ranks: Ranks) -> Split:
    """The split's files under ``folder``, written by one rank of each node if they are not there. All ranks call it.

    Raises:
        InputError: empty split, damaged shard, missing columns, latents of another preset.
    """
    manifest = shards.read_manifest(data)
    key = hashlib.sha256(repr((manifest, split, preset)).encode()).hexdigest()[:16]
    folder = folder / "shards"
    target = folder / f"{split}-{key}"
    if ranks.local_rank == 0 and not (target / "index.json").exists():
        part = folder / f"{split}-{key}.{uuid.uuid4().hex[:8]}.part"
        part.mkdir(parents=True)
        _write(data, manifest.select(split), preset, weights, part)
        try:
            part.rename(target)
        except OSError:  # another node was first in a folder that nodes share
            if not (target / "index.json").exists():
                raise
            shutil.rmtree(part)
    ranks.barrier()
    return _read(target)


def _write(data: str, selected: tuple[shards.Shard, ...], preset: Preset, weights: str, part: Path) -> None:
    phrases: dict[str, int] = {"": 0}
    index: dict[str, dict] = {}
    token, width = 0, preset.text.width
    with ExitStack() as stack:
        files: dict[str, object] = {}

        def append(name: str, array: np.ndarray) -> None:
            if name not in files:
                files[name] = stack.enter_context((part / name).open("ab"))
            files[name].write(np.ascontiguousarray(array).tobytes())  # type: ignore[attr-defined]

        for row in _rows(data, selected):
            latents = shards.latents_of(row)
            check_latents(row, latents.shape, preset)
            spans = []
            for caption in range(len(row["captions"])):
                states = shards.text_states_of(row, caption, width)
                append("text", states)
                spans.append((token, len(states)))
                token += len(states)
            shape = (int(latents.shape[1]), int(latents.shape[2]), int(latents.shape[3]))
            painted = _paint(row, shape, preset)
            bucket = row["bucket"]
            known = index.setdefault(bucket, {"shape": list(latents.shape), "clip_ids": [], "captions": []})
            known["clip_ids"].append(row["clip_id"])
            known["captions"].append(spans)
            append(f"{bucket}.latents", latents)
            for name in _leading(preset.dit):
                append(f"{bucket}.{name}", _or_zeros(painted, name, shape, preset).astype(np.float16))
            slots = [*painted.phrases, *[""] * preset.dit.object_slots][: preset.dit.object_slots]
            append(f"{bucket}.phrases", np.array([phrases.setdefault(p, len(phrases)) for p in slots], np.int32))
            append(f"{bucket}.fps", np.array([row["fps"]], np.float32))
    empty, table = _encode(preset, weights, list(phrases))
    np.save(part / "empty_text.npy", empty)
    np.save(part / "phrase_table.npy", table)
    described = {"buckets": index, "text_width": width, "controls": _leading(preset.dit)}
    (part / "index.json").write_text(json.dumps(described))


def _rows(data: str, selected: tuple[shards.Shard, ...]) -> Iterator[dict]:
    for shard in selected:
        for row in shards.read_rows(data, shard, COLUMNS):
            if row["latents"] is None or not row["captions"]:
                raise InputError(
                    "a clip without latents or captions",
                    where=f"{storage.join(data, shard.path)} {row['clip_id']}",
                    fix="Curate without --no-encode",
                )
            yield row


def check_latents(row: dict, shape: tuple[int, ...], preset: Preset) -> None:
    """Raises InputError unless these latents are what the preset's VAE makes of the row's clip."""
    vae = preset.vae
    stride = vae.stride_px
    expected = (vae.z_dim, vae.latent_frames(row["num_frames"]), row["height_px"] // stride, row["width_px"] // stride)
    if tuple(shape) != expected:
        raise InputError(
            f"latents of shape {tuple(shape)}, but preset {preset.name} makes {expected} of such a clip",
            where=row["clip_id"],
            fix="Curate this data with this preset",
        )


def _paint(row: dict, grid: tuple[int, int, int], preset: Preset) -> ControlArrays:
    if row["plan"] is None or row["track"] is None:
        return ControlArrays()
    plan = ScenePlan.model_validate_json(row["plan"])
    track = SceneTrack.model_validate_json(row["track"])
    aspect = row["width_px"] / row["height_px"]
    return conditioning.painted(plan, track, preset.dit, grid=grid, aspect=aspect)


def _or_zeros(painted: ControlArrays, name: str, grid: tuple[int, int, int], preset: Preset) -> np.ndarray:
    array = getattr(painted, name)
    return np.zeros((*_leading(preset.dit)[name], *grid), np.float32) if array is None else array


def _leading(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    """The axes of each control before those of the grid."""
    floor = {"floor": (FLOOR_POINTS * FLOOR_NUMBERS,)} if config.floor_waves else {}
    return {"camera": (6,), "flow": (2,), **floor, "objects": (config.object_slots, config.object_maps)}


def _encode(preset: Preset, weights: str, phrases: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """States of the empty prompt, and the mean state of each phrase."""
    encoder = TextEncoder(preset.text, tokenizer_dir=weights)
    load_part(weights, "text", encoder)
    encoder.eval()
    table = np.zeros((len(phrases), preset.text.width), np.float32)
    for start in range(1, len(phrases), 64):
        states, mask = encoder.encode(phrases[start : start + 64])
        table[start : start + 64] = (states.sum(dim=1) / mask.sum(dim=1, keepdim=True)).numpy()
    return encoder.encode([""]).states[0].numpy(), table


def _read(folder: Path) -> Split:
    index = json.loads((folder / "index.json").read_text())
    controls, buckets = index["controls"], []
    for name in sorted(index["buckets"]):
        known = index["buckets"][name]
        count, grid = len(known["clip_ids"]), known["shape"][1:]

        def mapped(kind: str, *shape: int, dtype: type = np.float16, bucket: str = name) -> np.ndarray:
            return np.memmap(folder / f"{bucket}.{kind}", dtype, "r", shape=shape)

        rows = np.argsort(np.array(known["clip_ids"]), kind="stable")
        buckets.append(
            Bucket(
                name=name,
                clip_ids=[known["clip_ids"][i] for i in rows],
                captions=[[tuple(span) for span in known["captions"][i]] for i in rows],
                latents=mapped("latents", count, *known["shape"]),
                controls={kind: mapped(kind, count, *axes, *grid) for kind, axes in controls.items()},
                phrases=mapped("phrases", count, controls["objects"][0], dtype=np.int32),
                fps=mapped("fps", count, dtype=np.float32),
                rows=rows,
            )
        )
    text = np.memmap(folder / "text", np.float16, "r").reshape(-1, index["text_width"])
    return Split(
        buckets=tuple(buckets),
        text=text,
        empty_text=np.load(folder / "empty_text.npy"),
        phrases=np.load(folder / "phrase_table.npy"),
    )
