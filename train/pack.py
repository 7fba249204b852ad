"""`python -m train pack tiny FOLDER... --out URI`: the parts of several weights folders in one, as half floats.

This is how the weights inside the package were put together from the runs of the stages (docs/tiny.md).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import nn

from kling.errors import InputError
from kling.model.checkpoint import load_part, read_card, save_part
from kling.model.dit import DiT
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import Preset, get_preset


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Put the parts (vae, text, dit) of weights folders into one folder; a later folder's part replaces an earlier."""

    preset: Annotated[str, tyro.conf.Positional]
    sources: Annotated[tuple[str, ...], tyro.conf.Positional]  # weights folders
    out: str  # weights folder; parts that are there and in no source stay as they are
    dtype: str = "float16"  # of the tensors on disk


def command(arguments: list[str]) -> None:
    """The subcommand's body."""
    print("\n".join(pack(tyro.cli(Pack, args=arguments, prog="python -m train pack"))))


def pack(request: Pack) -> list[str]:
    """Returns a line for each part written.

    Raises:
        InputError: no source, or a dtype that is none.
        CheckpointError: a source that is no weights folder, or of another preset's sizes.
    """
    dtype = getattr(torch, request.dtype, None)
    if not request.sources or not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(
            "give weights folders and a float type",
            where=f"{request.sources} {request.dtype}",
            fix="python -m train pack tiny out/vae/weights out/text/weights --out weights --dtype float16",
        )
    preset, written = get_preset(request.preset), []
    for source in request.sources:
        for name in read_card(source).parts:
            module = _module(name, preset)
            part = load_part(source, name, module)
            save_part(request.out, name, module, preset=preset.name, note=part.note, dtype=dtype)
            written.append(f"{name}: {part.note} ({source})")
    return written


def _module(name: str, preset: Preset) -> nn.Module:
    if name == "dit":
        return DiT(preset.dit)
    return VideoVAE(preset.vae) if name == "vae" else TextEncoder(preset.text)
