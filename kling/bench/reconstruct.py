"""`python -m kling.bench reconstruct`: what a VAE leaves readable, whatever its PSNR.

Each playground clip goes through the VAE and back; the evaluator reads colour, shape and size of every object from the
original and from the reconstruction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from einops import rearrange

from kling.bench.intervals import Share, share
from kling.bench.objects import ObjectVerdict, lasting, match
from kling.bench.reader import read
from kling.bench.tracks import find
from kling.errors import CheckpointError, InputError
from kling.media.video import read_frames
from kling.model.checkpoint import load_part, read_card
from kling.model.config import VAEConfig
from kling.model.vae import VideoVAE
from kling.pipeline import to_uint8
from kling.prompt.graph import ObjectNode
from kling.scene.plan import Sidecar
from kling.shapes import Frames

ATTRIBUTES = ("color", "shape", "size", "count")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the evaluator still reads right after a VAE has encoded and decoded playground clips."""

    clips: str  # folder of mp4 and json
    weights: str = str(Path(__file__).parents[1] / "weights" / "tiny")  # folder with a part "vae", of any size
    num_clips: int = 60  # the first so many; 0: all


@dataclass(frozen=True, kw_only=True)
class Readable:
    """Shares by attribute, each with its 95 % interval."""

    original: dict[str, Share]  # right in the originals: the evaluator's own ceiling
    reconstructed: dict[str, Share]  # right in the reconstructions
    kept: dict[str, Share]  # right in the reconstructions, of those right in the originals
    psnr_db: float


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    options = tyro.cli(Options, args=arguments, prog="python -m kling.bench reconstruct", description=Options.__doc__)
    found = measure(load_vae(options.weights), clips(options.clips, options.num_clips))
    print(f"PSNR {found.psnr_db:.2f} dB; 95 % intervals in brackets")
    print(f"{'':<8} {'original':<22} {'reconstruction':<22} kept of the readable")
    for name in ATTRIBUTES:
        print(f"{name:<8} {found.original[name]!s:<22} {found.reconstructed[name]!s:<22} {found.kept[name]}")
    return 0


def load_vae(uri: str) -> VideoVAE:
    """The VAE of a weights folder, of whatever size the folder says.

    Raises:
        CheckpointError: no weights there, or they do not fit their description.
    """
    card = read_card(uri)
    if "vae" not in card.parts:
        raise CheckpointError("the folder has no VAE", where=uri, fix=f"It has: {', '.join(sorted(card.parts))}")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in card.parts["vae"].config.items()}
    vae = VideoVAE(VAEConfig(**fields))  # type: ignore[arg-type]
    load_part(uri, "vae", vae)
    return vae.eval().requires_grad_(False)


def clips(folder: str, num_clips: int) -> Iterator[tuple[Frames, Sidecar]]:
    """Playground clips with their ground truth.

    Raises:
        InputError: none there.
    """
    files = sorted(Path(folder).glob("*.json"))
    files = [path for path in files if path.with_suffix(".mp4").exists()]
    if not files:
        raise InputError("no playground clips there", where=folder, fix="Render some: python -m data playground --help")
    for path in files[: num_clips or None]:
        frames, _ = read_frames(path.with_suffix(".mp4"))
        yield frames, Sidecar.model_validate_json(path.read_bytes())


def measure(vae: VideoVAE, pairs: Iterator[tuple[Frames, Sidecar]]) -> Readable:
    """Read every object before and after."""
    before: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    after: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    errors = []
    for frames, sidecar in pairs:
        again = reconstruct(vae, frames)
        errors.append(float(((frames.astype(np.float64) - again) ** 2).mean()))
        for rows, pictures in ((before, frames), (after, again)):
            for name, values in verdicts(pictures, truth(sidecar)).items():
                rows[name] += values
    kept = {name: [b for a, b in zip(before[name], after[name], strict=True) if a] for name in ATTRIBUTES}
    return Readable(
        original={name: share(values) for name, values in before.items()},
        reconstructed={name: share(values) for name, values in after.items()},
        kept={name: share(values) for name, values in kept.items()},
        psnr_db=float(np.mean([10 * np.log10(255**2 / max(error, 1e-9)) for error in errors])),
    )


@torch.no_grad()
def reconstruct(vae: VideoVAE, frames: Frames) -> Frames:
    """Encode and decode one clip; the same shape.

    Raises:
        ConfigError: a size or length the VAE cannot take.
    """
    video = rearrange(torch.from_numpy(frames).float() / 127.5 - 1, "f h w c -> 1 c f h w")
    return to_uint8(vae.decode(vae.encode(video)))


def truth(sidecar: Sidecar) -> list[ObjectNode]:
    """The objects that are really there. A size that nobody stated is not judged."""
    return [ObjectNode(id=item.id, shape=item.proxy, color=item.color, size=item.size) for item in sidecar.plan.objects]


def verdicts(frames: Frames, nodes: list[ObjectNode]) -> dict[str, list[bool]]:
    """Right or wrong for every object (count: one a clip)."""
    tracks = lasting(find(read(frames)), len(frames))
    found: tuple[ObjectVerdict, ...] = match(nodes, tracks)
    rows = {name: [v for o in found if (v := getattr(o, name)) is not None] for name in ("color", "shape", "size")}
    return {**rows, "count": [len(tracks) == len(nodes)]}
