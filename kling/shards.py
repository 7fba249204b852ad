"""Shards: what curation writes and training reads. Parquet files, a manifest, nothing pickled.

DATASET/
  manifest.json                        what is in it, written last: a data set without one is not finished
  shards/SPLIT/BUCKET/part-00000.parquet    rows of one split and one bucket (see SCHEMA)
  clips/ab/CLIP_ID.mp4                 the clips themselves, for people, evaluation and VAE training
  ledger/                              one row a source file: done | filtered(reason) | failed(stage, error)
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kling import storage
from kling.errors import InputError

MANIFEST = "manifest.json"

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),  # sha256 of source, shot and clip bounds: the same on every run
        ("source", pa.string()),  # URI of the source file, relative to the curated input where possible
        ("start_s", pa.float64()),  # where the clip lies in its source
        ("end_s", pa.float64()),
        ("split", pa.string()),  # train | val | bench
        ("bucket", pa.string()),  # "WIDTHxHEIGHTxFRAMES"
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("num_frames", pa.int32()),
        ("fps", pa.float64()),
        ("video", pa.string()),  # path of the clip under the data set
        # The part x0 y0 x1 y1 of the stored source picture that letterbox bars leave (before turning and scaling).
        ("crop_px", pa.list_(pa.int32())),
        # Path of the source's own packets under the data set (Matroska), where the clip begins at a key frame.
        ("original", pa.string()),
        ("captions", pa.list_(pa.struct([("text", pa.string()), ("language", pa.string()), ("family", pa.string())]))),
        # float16, C order; the shape beside it. One block of text states for each caption, in the same order.
        ("latents", pa.large_binary()),  # c f h w, normalised (kling.model.vae)
        ("latents_shape", pa.list_(pa.int32())),
        ("text_states", pa.list_(pa.large_binary())),  # l d each
        ("text_tokens", pa.list_(pa.int32())),  # l of each
        ("scores", pa.map_(pa.string(), pa.float64())),  # every score by name; thresholds are applied later
        ("look", pa.string()),  # perceptual hash: hex, 64 bits each of the first, middle and last frame
        ("duplicate_of", pa.string()),  # clip_id of an earlier clip that looks the same; null: none does
        ("labels", pa.string()),  # JSON: scene > objects > actions
        # JSON of kling.sight.annotation.Annotation: positions, velocities, contacts, occlusion order of each frame
        ("annotation", pa.string()),
        ("plan", pa.string()),  # JSON of kling.scene.plan.ScenePlan; null for real footage
        ("track", pa.string()),  # JSON of kling.scene.plan.SceneTrack; null for real footage
    ]
)
_ADDED = {"crop_px", "original", "annotation"}  # after the first version: older shards read as having none


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One parquet file of one split and bucket; of a selection, some of its rows."""

    path: str  # under the data set
    split: str
    bucket: str
    num_rows: int
    num_bytes: int
    sha256: str
    dataset: str = ""  # of a selection: URI of the data set that the path, and the paths in the rows, are under
    rows: tuple[int, ...] | None = None  # of a selection: numbers of the rows that are in it; None: all


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished data set holds."""

    preset: str
    encoder: str  # sha256 of the VAE and text weights that made latents and text states; "" if not encoded
    counts: dict[str, int]  # source files: total = done + filtered + failed; clips and rows beside them
    shards: tuple[Shard, ...]
    version: int = 1
    where: str = ""  # of a selection: the expression that its rows fulfil

    def select(self, split: str) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.split == split)


def write_manifest(dataset: str, manifest: Manifest) -> None:
    """The last write of a curation: a data set with a manifest is finished."""
    text = json.dumps(asdict(manifest), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(dataset, MANIFEST), text.encode())


def read_manifest(dataset: str) -> Manifest:
    """Raises InputError when the data set is missing, unfinished, or of another version."""
    where = storage.join(dataset, MANIFEST)
    if not storage.exists(where):
        raise InputError(
            "not a finished data set (it has no manifest)",
            where=where,
            fix="Make one: python -m data curate PRESET --input VIDEOS --out DATASET",
        )
    try:
        raw = json.loads(storage.read_bytes(where))
        raw["shards"] = tuple(_shard(shard) for shard in raw["shards"])
        manifest = Manifest(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the manifest cannot be read ({error})", where=where, fix="Curate again") from error
    if manifest.version != 1:
        raise InputError(f"data set of version {manifest.version}", where=where, fix="Curate it with this version")
    return manifest


def _shard(raw: dict[str, Any]) -> Shard:
    if raw.get("rows") is not None:
        raw["rows"] = tuple(raw["rows"])
    return Shard(**raw)


def read_rows(dataset: str, shard: Shard, columns: list[str] | None = None) -> Iterator[dict]:
    """Rows of one shard in file order.

    Raises:
        InputError: the shard is missing, damaged, or lacks a column.
    """
    where = storage.join(dataset, shard.path)
    fs, path = storage.resolve(where)
    wanted = columns or SCHEMA.names
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            present = [name for name in wanted if name in parquet.schema_arrow.names]
            table = parquet.read(columns=present)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read the shard ({error})", where=where, fix="Curate again") from error
    missing = set(wanted) - set(present)
    if missing - _ADDED:
        raise InputError(f"the shard lacks columns {sorted(missing)}", where=where, fix="Curate again")
    if shard.rows is not None:
        table = table.take(list(shard.rows))
    for row in table.to_pylist():
        row |= dict.fromkeys(missing)
        for name in ("video", "original"):  # of a selection: in the data set it was made from
            if shard.dataset and row.get(name):
                row[name] = storage.join(shard.dataset, row[name])
        yield row


def latents_of(row: dict) -> np.ndarray:
    """c f h w float16.

    Raises:
        InputError: the row holds more or fewer values than its shape says.
    """
    values, shape = np.frombuffer(row["latents"], np.float16), tuple(row["latents_shape"])
    if values.size != math.prod(shape):
        raise InputError(
            f"{values.size} latent values for shape {shape}", where=str(row.get("clip_id")), fix="Curate the clip again"
        )
    return values.reshape(shape)


def text_states_of(row: dict, caption: int, width: int) -> np.ndarray:
    """l d float16 of one caption."""
    return np.frombuffer(row["text_states"][caption], np.float16).reshape(-1, width)
