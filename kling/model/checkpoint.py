"""Weights folders: safetensors that describe themselves, checked whole before a module is touched.

FOLDER/
  kling.json                    format, preset, and for each part its config, files with sha256, and how it was made
  dit.safetensors, ...          one file a part; dit-00001.safetensors, ... where it is cut into shards

Files are read and written tensor by tensor, so that 12B parameters never need two copies in memory. Nothing is ever
unpickled.
"""

import hashlib
import json
import re
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from kling import storage
from kling.errors import CheckpointError, InputError

CARD = "kling.json"
_FORMAT = 1
SHARD_BYTES = 2 * 2**30  # a shard is in memory once more while it is written
_MAX_HEADER_BYTES = 100 * 2**20
# Sizes that change what a forward pass does but not what the weights are: a run may set them.
_FREE = {"window", "object_slots", "max_tokens"}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, kw_only=True)
class File:
    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network of a folder."""

    config: dict[str, object]  # the fields of its config dataclass
    files: tuple[File, ...]
    note: str = ""  # how it was made


@dataclass(frozen=True, kw_only=True)
class Card:
    """What kling.json says."""

    preset: str
    parts: dict[str, Part] = field(default_factory=dict)
    format: int = _FORMAT


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where one tensor lies: bytes [start, stop) of a file."""

    uri: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class Stored(Mapping[str, Tensor]):
    """The tensors of a component's safetensors files, read when asked for; keys may be renamed."""

    def __init__(self, folder: str, entries: dict[str, TensorEntry]):
        self.folder, self.entries = folder, entries

    def __getitem__(self, key: str) -> Tensor:
        return read_tensor(key, self.entries[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: entry.shape for key, entry in self.entries.items()}


def read_card(uri: str) -> Card:
    """The description of a weights folder.

    Raises:
        CheckpointError: no kling.json there, or not one that this version reads.
    """
    where = storage.join(uri, CARD)
    try:
        raw = json.loads(storage.read_bytes(where))
        if raw["format"] != _FORMAT:
            raise CheckpointError(
                f"the weights folder has format {raw['format']}, this version reads {_FORMAT}", where=where
            )
        parts = {
            name: Part(
                config=dict(part["config"]), files=tuple(File(**file) for file in part["files"]), note=part["note"]
            )
            for name, part in raw["parts"].items()
        }
        outside = [f.name for part in parts.values() for f in part.files if "/" in f.name or "\\" in f.name]
        if outside:
            raise CheckpointError(f"the description names a file outside its folder ({outside[0]})", where=where)
        return Card(preset=str(raw["preset"]), parts=parts)
    except InputError:
        raise CheckpointError(
            "not a weights folder (it has no kling.json)",
            where=uri,
            fix="Give the folder that a training run or `kling import-weights` wrote",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the description of the weights ({error})", where=where) from error


def save_part(
    uri: str,
    name: str,
    module: nn.Module,
    *,
    preset: str,
    note: str = "",
    dtype: torch.dtype | None = None,
) -> None:
    """Add or replace one part of a weights folder.

    Readers see the old part or the new one, never a mix: files appear under fresh names, then kling.json changes.

    Args:
        dtype: of floating-point tensors on disk (torch.float16 halves the file); None: as they are.

    Raises:
        CheckpointError: a value is not finite, or does not fit ``dtype``.
    """
    config = getattr(module, "config", None)
    fields: dict[str, object] = asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
    tensors = ((key, t.detach()) for key, t in tensor_slots(module).items())
    write_part(uri, name, tensors, preset=preset, config=fields, note=note, dtype=dtype)


def write_part(
    uri: str,
    name: str,
    tensors: Iterator[tuple[str, Tensor]],
    *,
    preset: str,
    config: dict[str, object],
    note: str = "",
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """`save_part` for tensors that come one by one: one shard at a time is held."""
    old = read_card(uri) if storage.exists(storage.join(uri, CARD)) else Card(preset=preset)
    stem = name
    if storage.exists(storage.join(uri, f"{name}.safetensors")) or name in old.parts:
        stem = f"{name}-{uuid.uuid4().hex[:8]}"
    files: list[File] = []
    try:
        for shard in shards(tensors, dtype, shard_bytes):
            many = files or shard.more
            file = f"{stem}-{len(files) + 1:05}.safetensors" if many else f"{stem}.safetensors"
            files.append(write_file(uri, file, shard.tensors))
    except BaseException:  # nothing half-written stays behind
        _remove(uri, files)
        raise
    part = Part(config=json.loads(json.dumps(config)), files=tuple(files), note=note)
    card = Card(preset=preset, parts={**old.parts, name: part})
    text = json.dumps(asdict(card), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(uri, CARD), text.encode())
    if name in old.parts:
        _remove(uri, old.parts[name].files)


def load_part(uri: str, name: str, module: nn.Module) -> Part:
    """Fill a module with a part of a weights folder, all of it or nothing; values are cast to the module's dtype.

    Parameters on the meta device are replaced by the loaded tensors, so a big model needs one copy only.

    Raises:
        CheckpointError: missing, truncated or changed files, other sizes, missing or unknown tensors, values that are
            not finite. The module is then as it was.
    """
    card = read_card(uri)
    if name not in card.parts:
        raise CheckpointError(f"the folder has no {name!r}", where=uri, fix=f"It has: {', '.join(sorted(card.parts))}")
    part = card.parts[name]
    _same_config(uri, name, part, module)
    entries: dict[str, TensorEntry] = {}
    for file in part.files:
        entries.update(read_header(storage.join(uri, file.name)))
    slots = tensor_slots(module)
    check_names(storage.join(uri, name), {key: entry.shape for key, entry in entries.items()}, slots)

    def read() -> Iterator[tuple[str, Tensor]]:
        for file in part.files:
            yield from read_file(storage.join(uri, file.name), file)

    if any(t.is_meta for t in slots.values()):
        fill(module, {key: t.to(slots[key].dtype) for key, t in read()})
        return part
    for _ in read():  # a first pass checks every value and the file's sum: nothing is loaded by half
        pass
    with torch.no_grad():
        for key, t in read():
            slots[key].copy_(t)
    return part


def tensor_slots(module: nn.Module) -> dict[str, Tensor]:
    """Persistent tensors by name; one that appears under several names (tied weights) only under the first."""
    slots: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            slots[key] = value
    return slots


def fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Replace a meta module's tensors by loaded ones; tied names stay tied."""
    state = module.state_dict(keep_vars=True)  # held to the end, so that ids stay those of living tensors
    made: dict[int, Tensor] = {}
    for key, old in state.items():
        if id(old) not in made:
            new = tensors[key]
            made[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
        path, _, leaf = key.rpartition(".")
        setattr(module.get_submodule(path), leaf, made[id(old)])


def check_names(where: str, shapes: dict[str, tuple[int, ...]], slots: dict[str, Tensor]) -> None:
    """Raises CheckpointError unless names and shapes are exactly the module's."""
    missing, unknown = sorted(slots.keys() - shapes.keys()), sorted(shapes.keys() - slots.keys())
    if missing or unknown:
        told = [f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
                for kind, keys in (("missing", missing), ("unknown", unknown)) if keys]  # fmt: skip
        raise CheckpointError(f"these are not this model's tensors: {'; '.join(told)}", where=where)
    for key, slot in slots.items():
        if tuple(slot.shape) != shapes[key]:
            raise CheckpointError(
                f"{key} has shape {shapes[key]}, the model's is {tuple(slot.shape)}",
                where=where,
                fix="Use the preset these weights were made with",
            )


def read_header(uri: str) -> dict[str, TensorEntry]:
    """Names, types, shapes and places of a safetensors file, checked against its length.

    Raises:
        CheckpointError: a pickle (refused by name), truncated, or not safetensors.
    """
    if re.search(r"\.(bin|pt|pth|ckpt|pkl|pickle)$", uri):
        raise CheckpointError(
            "pickled weights are not read, since unpickling runs code",
            where=uri,
            fix="Convert them to safetensors where you trust them",
        )
    fs, path = storage.resolve(uri)
    try:
        num_bytes = fs.size(path)
    except FileNotFoundError:
        raise CheckpointError("a file of the weights is missing", where=uri) from None
    broken = CheckpointError("not a safetensors file, or a truncated one", where=uri, fix="Fetch or write it again")
    if num_bytes < 8:
        raise broken
    (length,) = struct.unpack("<Q", fs.cat_file(path, start=0, end=8))
    if length > min(num_bytes - 8, _MAX_HEADER_BYTES):
        raise broken
    try:
        header = json.loads(fs.cat_file(path, start=8, end=8 + length))
        header.pop("__metadata__", None)
        entries, at = {}, 0
        for key, item in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
            dtype, shape = _DTYPES[item["dtype"]], tuple(int(n) for n in item["shape"])
            start, stop = item["data_offsets"]
            if start != at or stop - start != torch.Size(shape).numel() * dtype.itemsize:
                raise broken
            at = stop
            entries[key] = TensorEntry(
                uri=uri, dtype=dtype, shape=shape, start=8 + length + start, stop=8 + length + stop
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise broken from None
    if 8 + length + at != num_bytes:
        raise broken
    return entries


def read_tensor(key: str, entry: TensorEntry, digest: Any = None) -> Tensor:
    """One tensor, in its type on disk. Raises CheckpointError when a value is not finite."""
    fs, path = storage.resolve(entry.uri)
    data = fs.cat_file(path, start=entry.start, end=entry.stop) if entry.stop > entry.start else b""
    if digest is not None:
        digest.update(data)
    value = torch.frombuffer(bytearray(data), dtype=entry.dtype) if data else torch.empty(0, dtype=entry.dtype)
    value = value.view(entry.shape)
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise CheckpointError(f"{key} holds values that are not finite", where=entry.uri)
    return value


def read_file(uri: str, file: File) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a file in their order, then the check of the file's sum: use none before the end is reached."""
    entries = read_header(uri)
    fs, path = storage.resolve(uri)
    first = min((entry.start for entry in entries.values()), default=file.num_bytes)
    digest = hashlib.sha256(fs.cat_file(path, start=0, end=first))
    for key, entry in entries.items():
        yield key, read_tensor(key, entry, digest)
    if digest.hexdigest() != file.sha256:
        raise CheckpointError("the file is not the one that was saved (sha256 differs)", where=uri)


def write_file(uri: str, name: str, tensors: dict[str, Tensor]) -> File:
    """One safetensors file."""
    data = save({key: t.contiguous() for key, t in tensors.items()})
    storage.write_bytes(storage.join(uri, name), data)
    return File(name=name, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What goes into one file."""

    tensors: dict[str, Tensor]
    more: bool  # another one follows


def shards(tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype | None, most_bytes: int) -> Iterator[Shard]:
    """Tensors gathered to files of at most ``most_bytes`` (more only where one tensor is larger)."""
    held: dict[str, Tensor] = {}
    size = 0
    for key, value in tensors:
        value = _finite(key, value, dtype)
        if held and size + value.nbytes > most_bytes:
            yield Shard(tensors=held, more=True)
            held, size = {}, 0
        held[key] = value
        size += value.nbytes
    yield Shard(tensors=held, more=False)


def _remove(uri: str, files: Iterable[File]) -> None:
    for file in files:
        fs, path = storage.resolve(storage.join(uri, file.name))
        fs.rm_file(path)


def _finite(key: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.to("cpu")
    if value.is_floating_point():
        value = value if dtype is None else value.to(dtype)
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{key} holds values that are not finite in {value.dtype}: not saved", where=key)
    return value


def _same_config(uri: str, name: str, part: Part, module: nn.Module) -> None:
    """Equal shapes do not mean an equal model (heads, patches): the configs must agree too."""
    config = getattr(module, "config", None)
    if not is_dataclass(config) or isinstance(config, type):
        return
    ours = json.loads(json.dumps(asdict(config)))
    other = [key for key in ours if key not in _FREE and key in part.config and part.config[key] != ours[key]]
    if other:
        told = ", ".join(f"{key} {part.config[key]} (here {ours[key]})" for key in other[:4])
        raise CheckpointError(
            f"{name} was made with other sizes: {told}", where=uri, fix="Use the preset these weights were made with"
        )
