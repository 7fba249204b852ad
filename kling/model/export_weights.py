"""`kling export-weights FOLDER --out DIR`: our transformer as diffusers' ``WanTransformer3DModel`` reads it.

Controls stay behind, since diffusers has none, and so does the temporal window: there, every frame sees every other.
Tensors pass through one by one: the peak is one shard. VAE and text encoder are those the weights were imported with.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro

from kling import storage
from kling.errors import CheckpointError, ConfigError
from kling.model.checkpoint import (
    SHARD_BYTES,
    Stored,
    check_names,
    read_card,
    read_file,
    read_header,
    shards,
    tensor_slots,
    write_file,
)
from kling.model.config import DiTConfig
from kling.model.dit import DiT
from kling.model.wan import to_wan, wan_config

_STEM = "diffusion_pytorch_model"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    """Write the transformer of a weights folder as diffusers' WanTransformer3DModel."""

    folder: Annotated[str, tyro.conf.Positional]  # what a training run or `kling import-weights` wrote
    out: str  # the folder transformer/ to write: any storage URI
    dtype: Literal["as-is", "float32", "bfloat16", "float16"] = "as-is"


def command(argv: list[str]) -> None:
    """The body of `kling export-weights`."""
    given = tyro.cli(_Arguments, args=argv, prog="kling export-weights")
    for name in export_dit(given.folder, given.out, dtype=_DTYPES.get(given.dtype)):
        print(storage.join(given.out, name))


def export_dit(
    folder: str, out: str, *, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> tuple[str, ...]:
    """Write config.json and safetensors (several with an index, where they are more than a shard); returns the names.

    Raises:
        CheckpointError: no transformer there, or files that are not what was saved. Nothing is written then.
        ConfigError: it predicts clean latents, or the target is taken.
    """
    part = read_card(folder).parts.get("dit")
    if part is None:
        raise CheckpointError("the folder has no transformer", where=folder)
    config = DiTConfig(**{**part.config, "patch": tuple(part.config["patch"])})  # pyright: ignore[reportArgumentType]
    theirs = {
        "_class_name": "WanTransformer3DModel",
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
        **wan_config(config),
    }
    if storage.exists(storage.join(out, "config.json")):
        raise ConfigError("there is a model already", where=out, fix="Choose another folder")
    entries = {}
    for file in part.files:
        for _ in read_file(storage.join(folder, file.name), file):  # to the end, where its sum is checked
            pass
        entries |= read_header(storage.join(folder, file.name))
    stored = Stored(folder, entries)
    with torch.device("meta"):
        check_names(folder, stored.shapes(), tensor_slots(DiT(config)))

    names: list[str] = []
    weight_map: dict[str, str] = {}
    for shard in shards(to_wan(stored, config), dtype, shard_bytes):
        many = names or shard.more
        names.append(f"{_STEM}-{len(names) + 1:05}.safetensors" if many else f"{_STEM}.safetensors")
        weight_map |= dict.fromkeys(shard.tensors, names[-1])
        write_file(out, names[-1], shard.tensors)
    if len(names) > 1:
        names.append(f"{_STEM}.safetensors.index.json")
        index = {"metadata": {}, "weight_map": weight_map}
        storage.write_bytes(storage.join(out, names[-1]), json.dumps(index, indent=1).encode())
    storage.write_bytes(storage.join(out, "config.json"), json.dumps(theirs, indent=1).encode())
    return (*names, "config.json")
