"""Step 7: commit. A finished unit is written where a later run finds it; the order of the writes makes a kill harmless.

OUT/work/SOURCE_KEY-FINGERPRINT/
  0000.parquet      rows of the unit's clips (kling.shards.SCHEMA); what failed is in the file's metadata
  outcome.json      the source's outcome; the source is finished when this and all its units are here
"""

import io
import json
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from data.work import Clip, Outcome, Recipe, Source, Unit
from kling import shards, storage
from kling.media.video import write_mp4

_FAILED, _SECONDS = b"kling.failed", b"kling.seconds"


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A unit read back."""

    rows: pa.Table
    failed: dict[str, str]  # clip id > "stage: error"
    seconds: dict[str, float]


def work_folder(dataset: str, source: Source) -> str:
    return storage.join(dataset, "work", f"{source.key}-{source.fingerprint}")


def commit_unit(unit: Unit, dataset: str, recipe: Recipe) -> None:
    """Clips first, then their rows, then the outcome: whatever exists is whole.

    Raises:
        StorageError: the output cannot be written; this ends the run, since no file is to blame.
    """
    folder = work_folder(dataset, unit.source)
    if unit.clips:
        good = [clip for clip in unit.clips if clip.failed is None]
        for clip in good:
            video = io.BytesIO()
            write_mp4(video, clip.pixels, fps=recipe.spec.fps)
            storage.write_bytes(storage.join(dataset, video_path(clip.clip_id)), video.getvalue())
            if clip.original is not None:
                storage.write_bytes(storage.join(dataset, _original_path(clip.clip_id)), clip.original)
        failed = {clip.clip_id: clip.failed for clip in unit.clips if clip.failed is not None}
        table = pa.Table.from_pylist([_row(clip, unit.source, recipe) for clip in good], schema=shards.SCHEMA)
        table = table.replace_schema_metadata({_FAILED: json.dumps(failed), _SECONDS: json.dumps(unit.seconds)})
        storage.write_bytes(storage.join(folder, f"{unit.index:04d}.parquet"), parquet_bytes(table))
    if unit.outcome is not None:
        outcome = asdict(unit.outcome) | ({} if unit.clips else {"seconds": unit.seconds})
        storage.write_bytes(storage.join(folder, "outcome.json"), json.dumps(outcome, ensure_ascii=False).encode())


def read_unit(dataset: str, source: Source, index: int) -> Committed:
    data = storage.read_bytes(storage.join(work_folder(dataset, source), f"{index:04d}.parquet"))
    table = pq.read_table(io.BytesIO(data))
    notes = table.schema.metadata or {}
    return Committed(
        rows=table.cast(shards.SCHEMA), failed=json.loads(notes[_FAILED]), seconds=json.loads(notes[_SECONDS])
    )


def read_outcome(dataset: str, source: Source) -> Outcome:
    raw = json.loads(storage.read_bytes(storage.join(work_folder(dataset, source), "outcome.json")))
    return Outcome(**raw | {"warnings": tuple(raw["warnings"])})


def finished_sources(dataset: str, sources: list[Source]) -> set[str]:
    """Names of the sources with an outcome and all their units, from one listing of the work folder."""
    work = storage.join(dataset, "work")
    if not storage.exists(work):
        return set()
    present: dict[str, set[str]] = {}
    for uri in storage.list_files(work):
        folder, _, name = uri.rpartition("/")
        present.setdefault(folder.rpartition("/")[2], set()).add(name)
    finished = set()
    for source in sources:
        names = present.get(f"{source.key}-{source.fingerprint}", set())
        if "outcome.json" in names:
            num_units = read_outcome(dataset, source).num_units
            if all(f"{i:04d}.parquet" in names for i in range(num_units)):
                finished.add(source.name)
    return finished


def video_path(clip_id: str) -> str:
    """Of a clip under the data set."""
    return f"clips/{clip_id[:2]}/{clip_id}.mp4"


def _original_path(clip_id: str) -> str:
    return f"originals/{clip_id[:2]}/{clip_id}.mkv"


def parquet_bytes(table: pa.Table) -> bytes:
    """The same table gives the same bytes."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", row_group_size=64)
    return out.getvalue()


def _row(clip: Clip, source: Source, recipe: Recipe) -> dict:
    spec = recipe.spec
    return {
        "clip_id": clip.clip_id,
        "source": source.name,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "split": clip.split,
        "bucket": f"{spec.width_px}x{spec.height_px}x{spec.num_frames}",
        "width_px": spec.width_px,
        "height_px": spec.height_px,
        "num_frames": spec.num_frames,
        "fps": float(spec.fps),
        "video": video_path(clip.clip_id),
        "crop_px": None if clip.crop_px is None else list(clip.crop_px),
        "original": None if clip.original is None else _original_path(clip.clip_id),
        "captions": clip.captions,
        "latents": None if clip.latents is None else clip.latents.tobytes(),
        "latents_shape": None if clip.latents is None else list(clip.latents.shape),
        "text_states": [states.tobytes() for states in clip.text_states],
        "text_tokens": [len(states) for states in clip.text_states],
        "scores": sorted(clip.scores.items()),
        "look": clip.look,
        "duplicate_of": None,  # known when all clips are
        "labels": clip.labels,
        "annotation": clip.annotation,
        "plan": clip.plan,
        "track": clip.track,
    }


def read_seconds(dataset: str) -> dict[str, float]:
    """Working time of each stage, summed over everything that is committed; empty when the work folder is gone."""
    work, total = storage.join(dataset, "work"), dict[str, float]()
    for uri in storage.list_files(work) if storage.exists(work) else []:
        spent: dict[str, float] = {}
        if uri.endswith(".parquet"):
            notes = pq.read_schema(io.BytesIO(storage.read_bytes(uri))).metadata or {}
            spent = json.loads(notes.get(_SECONDS, b"{}"))
        elif uri.endswith("outcome.json"):  # of a file that gave no clip: it cost time, too
            spent = json.loads(storage.read_bytes(uri))["seconds"]
        for stage, seconds in spent.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def note_run(dataset: str, *, num_files: int, seconds: float) -> None:
    """Wall time of a run that came to its end, start of the cluster included; for the report."""
    runs = [*read_runs(dataset), {"num_files": num_files, "seconds": round(seconds, 3)}]
    storage.write_bytes(storage.join(dataset, "work", "runs.json"), json.dumps(runs).encode())


def read_runs(dataset: str) -> list[dict[str, float]]:
    """``num_files`` and ``seconds`` of each run that came to its end; none when the work folder is gone."""
    where = storage.join(dataset, "work", "runs.json")
    return json.loads(storage.read_bytes(where)) if storage.exists(where) else []
