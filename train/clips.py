"""Pixels for the VAE stage: every clip decoded once into one uint8 file on disk, read as memory."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from kling import shards, storage
from kling.errors import InputError
from kling.media.video import read_frames
from kling.presets import ClipSpec
from kling.shapes import Frames


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """URIs of clips, by split."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def find_clips(data: str) -> ClipFiles:
    """The clips of a curated data set, or the mp4 files of a folder (the playground's, or anybody's).

    A folder's clips are split as their sidecars say; a clip without one goes to validation by its name's hash, 1 in 32.
    Clips of the benchmark split are never read.

    Raises:
        InputError: no manifest and no mp4, or no clip for training.
    """
    found = _from_dataset(data) if storage.exists(storage.join(data, shards.MANIFEST)) else _from_folder(data)
    if not found["train"]:
        raise InputError("no clip to train on", where=data, fix="Give a curated data set, or a folder of mp4 files")
    val = found["val"] or found["train"][: max(1, len(found["train"]) // 32)]
    held_out = set(val)
    return ClipFiles(train=tuple(c for c in found["train"] if c not in held_out) or tuple(val), val=tuple(val))


def _from_dataset(data: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "val": []}
    for shard in shards.read_manifest(data).shards:
        if shard.split in found:
            rows = shards.read_rows(data, shard, ["video"])
            found[shard.split] += [storage.join(data, row["video"]) for row in rows]
    return found


def _from_folder(data: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "val": [], "bench": []}
    files = storage.list_files(data)
    sidecars = {name for name in files if name.endswith(".json")}
    for name in (name for name in files if name.endswith(".mp4")):
        sidecar = name[: -len(".mp4")] + ".json"
        if sidecar in sidecars:
            split = json.loads(storage.read_bytes(sidecar)).get("split", "train")
        else:
            split = "val" if hashlib.sha256(Path(name).name.encode()).digest()[0] % 32 == 0 else "train"
        found[split].append(name)
    return found


def load_pixels(files: tuple[str, ...], clip: ClipSpec, cache: Path) -> np.ndarray:
    """n f h w 3 uint8, memory-mapped: decoded on the first call, reused while the list of files stays the same.

    A video longer than the clip gives as many clips as it holds; other sizes are cropped to the clip's aspect and
    scaled. Unreadable and too short files are counted and left out.

    Raises:
        InputError: no file was usable.
    """
    key = hashlib.sha256("\n".join((repr(clip), *files)).encode()).hexdigest()
    index = cache.with_suffix(".json")
    if index.exists() and (known := json.loads(index.read_text()))["key"] == key:
        pixels = np.load(cache, mmap_mode="r")
        return pixels[: known["count"]]
    cache.parent.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    shape = (clip.num_frames, clip.height_px, clip.width_px, 3)
    count, left_out, first_error = 0, 0, ""
    with cache.with_suffix(".raw").open("wb") as raw:
        for name in track(files, description=f"decoding {cache.stem} clips", transient=True):
            try:
                frames, _ = read_frames(storage.read_bytes(name))
            except InputError as error:
                left_out, first_error = left_out + 1, first_error or str(error)
                continue
            whole = len(frames) // clip.num_frames
            left_out += whole == 0
            for part in range(whole):
                piece = frames[part * clip.num_frames : (part + 1) * clip.num_frames]
                raw.write(_fit(piece, clip.width_px, clip.height_px).tobytes())
            count += whole
    if not count:
        cache.with_suffix(".raw").unlink()
        raise InputError(
            f"no clip of {clip.num_frames} frames among {len(files)} files", where=files[0], fix=first_error
        )
    if left_out:
        print(f"left out {left_out} of {len(files)} files: unreadable or shorter than {clip.num_frames} frames")
    _add_header(cache, (count, *shape))
    index.write_text(json.dumps({"key": key, "count": count, "left_out": left_out}))
    return np.load(cache, mmap_mode="r")


def _add_header(cache: Path, shape: tuple[int, ...]) -> None:
    """raw bytes to .npy, without holding them in memory."""
    raw = cache.with_suffix(".raw")
    source = np.memmap(raw, np.uint8, "r", shape=shape)
    target = np.lib.format.open_memmap(cache, "w+", np.uint8, shape)
    for start in range(0, shape[0], 256):
        target[start : start + 256] = source[start : start + 256]
    target.flush()
    del source, target
    raw.unlink()


def _fit(frames: Frames, width_px: int, height_px: int) -> Frames:
    """Centre-crop to the aspect, then scale."""
    _, height, width, _ = frames.shape
    if (width, height) == (width_px, height_px):
        return frames
    scale = min(width / width_px, height / height_px)
    crop_w, crop_h = round(width_px * scale), round(height_px * scale)
    x, y = (width - crop_w) // 2, (height - crop_h) // 2
    cropped = frames[:, y : y + crop_h, x : x + crop_w]
    return np.stack([cv2.resize(f, (width_px, height_px), interpolation=cv2.INTER_AREA) for f in cropped])
