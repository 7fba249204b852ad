"""`python -m kling.bench train-reader`: teach the reader on rendered playground clips and their sidecars.

    python -m data playground --num-clips 1800 --out out/clips --split train --seed 20000
    python -m kling.bench train-reader --clips out/clips --out kling/bench/reader.safetensors

Masks come from the sidecars' geometry: every outline here is the convex hull of a few projected points.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as fn

from kling.bench.reader import OFFSET_PX, SIDE_PX, SIZE_NAMES, Reader, load
from kling.camera import poses
from kling.errors import InputError
from kling.media.video import read_frames
from kling.prompt.graph import COLORS, SHAPES
from kling.scene.plan import Sidecar
from kling.scene.simulate import outline

_COLORS, _SHAPES = 1 + len(COLORS), len(SHAPES)
_NOTHING = -1  # index of a pixel that a loss does not look at


@dataclass(frozen=True, kw_only=True)
class Options:
    """Teach the evaluator's reader on playground clips of the training split."""

    clips: tuple[str, ...]  # folders of mp4 and json
    out: str = "reader.safetensors"
    steps: int = 3000
    batch: int = 32  # pictures a step
    every: int = 2  # of each clip, every so many frames are used
    learning_rate: float = 3e-3
    seed: int = 0
    minutes: float = 0.0  # stop and save after so long; call again with --resume to go on; 0: never
    resume: bool = False  # go on from OUT.state
    start_from: str = ""  # weights to begin with instead of random ones


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    options = tyro.cli(Options, args=arguments, prog="python -m kling.bench train-reader", description=Options.__doc__)
    train(options)
    return 0


def masks(sidecar: Sidecar, frame_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which object each pixel shows: f h w, -1 for none; and f k 2, the middle of each outline in pixels."""
    height, width, plan, track = sidecar.height_px, sidecar.width_px, sidecar.plan, sidecar.track
    pose = np.array(track.camera.camera_to_world)[frame_indices]
    focal = poses.focal(np.array(track.camera.fov_y_deg)[frame_indices]) * height
    found = np.full((len(frame_indices), height, width), -1, np.int8)
    middles = np.zeros((len(frame_indices), len(plan.objects), 2), np.float32)
    order = np.argsort(-np.array([np.array(item.depth_m)[frame_indices] for item in track.objects]), axis=0)
    hulls: list[list[np.ndarray | None]] = []
    for item, moving in zip(plan.objects, track.objects, strict=True):
        where, turn = np.array(moving.position_m)[frame_indices], np.array(moving.quaternion)[frame_indices]
        points = outline(item, where, turn, pose[:, :3, 3])
        local = np.einsum("fji,fnj->fni", pose[:, :3, :3], points - pose[:, None, :3, 3])
        flat = local[..., :2] / np.maximum(local[..., 2:], 1e-6) * focal[:, None, None] + [width / 2, height / 2]
        hulls.append(
            [
                None if z.min() < 0.05 else cv2.convexHull(p.astype(np.float32))
                for z, p in zip(local[..., 2], flat, strict=True)
            ]
        )
    for frame in range(len(frame_indices)):
        for k in order[:, frame]:
            hull = hulls[k][frame]
            if hull is None:
                continue
            middles[frame, k] = (hull[:, 0].min(0) + hull[:, 0].max(0)) / 2
            corners = np.clip((hull - 0.5) * 16, -(2**20), 2**20).round().astype(np.int32)
            drawn = cv2.fillConvexPoly(np.zeros((height, width), np.uint8), corners, 1, shift=4)
            found[frame][drawn > 0] = k
    return found, middles


def examples(folders: tuple[str, ...], every: int) -> dict[str, Tensor]:
    """Pictures and what each pixel of them is.

    Raises:
        InputError: no clips there, or clips of another size.
    """
    files = sorted(path for folder in folders for path in Path(folder).glob("*.json"))
    if not files:
        raise InputError(
            "no playground clips there", where=", ".join(folders), fix="Render some: python -m data playground"
        )
    rows: dict[str, list[np.ndarray]] = {key: [] for key in ("picture", "color", "shape", "size", "offset", "depth")}
    for number, path in enumerate(files):
        sidecar = Sidecar.model_validate_json(path.read_bytes())
        if (sidecar.height_px, sidecar.width_px) != (SIDE_PX, SIDE_PX):
            raise InputError(f"the reader is taught on {SIDE_PX} x {SIDE_PX} clips", where=str(path))
        frames, _ = read_frames(path.with_suffix(".mp4"))
        chosen = np.arange(number % every, len(frames), every)
        found, middles = masks(sidecar, chosen)
        _append(rows, sidecar, frames[chosen], chosen, found, middles)
    return {key: torch.from_numpy(np.concatenate(value)) for key, value in rows.items()}


def _append(rows: dict[str, list[np.ndarray]], sidecar: Sidecar, frames, chosen, found, middles) -> None:
    items = sidecar.plan.objects
    there, index = found >= 0, np.maximum(found, 0)

    def paint(values: list[int], otherwise: int) -> np.ndarray:
        return np.where(there, np.array(values, np.int64)[index], otherwise).astype(np.int8)

    rows["picture"].append(frames)
    rows["color"].append(paint([1 + COLORS.index(o.color) if o.color else _NOTHING for o in items], 0))
    rows["shape"].append(paint([SHAPES.index(o.proxy) for o in items], _NOTHING))
    rows["size"].append(paint([SIZE_NAMES.index(o.size or "") for o in items], _NOTHING))
    y, x = np.mgrid[: found.shape[1], : found.shape[2]] + 0.5
    middle = np.take_along_axis(middles[:, :, None, None], index[:, None, :, :, None].astype(int), axis=1)[:, 0]
    offset = np.stack([middle[..., 0] - x, middle[..., 1] - y], axis=1)
    rows["offset"].append(np.where(there[:, None], offset, 0).clip(-60, 60).astype(np.float16))
    depths = np.array([np.array(o.depth_m)[chosen] for o in sidecar.track.objects]).T  # f k
    depth = np.take_along_axis(depths[:, :, None, None], index[:, None].astype(int), axis=1)[:, 0]
    rows["depth"].append(np.where(there, depth, 0).astype(np.float16))


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Light, contrast, blur, noise: a reader must read colours and shapes, not the renderer's own look."""
    b = len(pictures)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    gain, lift = 0.85 + 0.3 * draw(b, 1, 1, 1), (draw(b, 1, 1, 1) - 0.5) * 0.1
    gain = gain * (0.97 + 0.06 * draw(b, 3, 1, 1))
    pictures = pictures * gain + lift
    blur = 0.3 + 0.7 * float(draw(1))
    line = torch.exp(-0.5 * (torch.arange(-3, 4) / blur) ** 2)
    kernel = (line[:, None] * line[None]) / line.sum() ** 2
    smooth = fn.conv2d(fn.pad(pictures, (3,) * 4, mode="replicate"), kernel.expand(3, 1, 7, 7).contiguous(), groups=3)
    pictures = torch.where(draw(b, 1, 1, 1) < 0.5, smooth, pictures)
    pictures = pictures + torch.randn(pictures.shape, generator=generator) * 0.02 * draw(b, 1, 1, 1)
    return pictures.clamp(0, 1)


def losses(reader: Reader, pictures: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of the loss, weighted; ``truth`` as `examples` makes it, b first."""
    fine, coarse = reader(pictures)
    color, there = truth["color"].long(), (truth["color"] > 0).float()
    weight = torch.ones(_COLORS)
    weight[0] = 0.4  # most pixels are background
    amount = there.sum().clamp_min(1)
    away = fn.smooth_l1_loss(fine[:, _COLORS:], truth["offset"].float() / OFFSET_PX, reduction="none").sum(1)
    full = fn.interpolate(coarse, scale_factor=2)
    depth = fn.smooth_l1_loss(full[:, -1], truth["depth"].float().clamp_min(0.1).log(), reduction="none", beta=0.2)
    return {
        "color": fn.cross_entropy(fine[:, :_COLORS], color, weight=weight, ignore_index=_NOTHING) * 4,
        "offset": (away * there).sum() / amount * 2,
        "shape": fn.cross_entropy(full[:, :_SHAPES], truth["shape"].long(), ignore_index=_NOTHING) * 2,
        "size": fn.cross_entropy(full[:, _SHAPES:-1], truth["size"].long(), ignore_index=_NOTHING),
        "depth": (depth * there).sum() / amount,
    }


def train(options: Options) -> None:
    """Teach, print the losses, save half-precision weights (and the state to go on from)."""
    torch.manual_seed(options.seed)
    data = examples(options.clips, options.every)
    reader = load(Path(options.start_from)).train().requires_grad_(True) if options.start_from else Reader()
    optimizer = torch.optim.AdamW(reader.parameters(), lr=options.learning_rate, weight_decay=0.01)
    state, first, start = Path(options.out + ".state"), 0, time.monotonic()
    if options.resume and state.exists():
        first = _restore(state, reader, optimizer)
    mean: dict[str, float] = {}
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1.0, (step + 1) / 100) * _fall(step / options.steps)
        parts = losses(reader, *_batch(data, options, step))
        optimizer.zero_grad()
        sum(parts.values(), torch.zeros(())).backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        mean = {k: 0.98 * mean.get(k, float(v.detach())) + 0.02 * float(v.detach()) for k, v in parts.items()}
        late = bool(options.minutes) and time.monotonic() - start > options.minutes * 60
        if (step + 1) % 100 == 0 or late:
            print(f"{step + 1} " + " ".join(f"{k} {v:.3f}" for k, v in mean.items()), flush=True)
        if late or step + 1 == options.steps:
            _save(options.out, state, reader, optimizer, step + 1)
            return


def _fall(share: float) -> float:
    return float(0.02 + 0.98 * (1 + np.cos(np.pi * share)) / 2)


def _batch(data: dict[str, Tensor], options: Options, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Drawn by the step's own seed, so that a resumed run sees what an uninterrupted one would have."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    index = torch.randint(len(data["picture"]), (options.batch,), generator=generator)
    truth = {key: value[index] for key, value in data.items()}
    pictures = rearrange(truth.pop("picture"), "b h w c -> b c h w").float() / 255
    if torch.rand(1, generator=generator) < 0.5:
        pictures, truth = pictures.flip(-1), {key: value.flip(-1) for key, value in truth.items()}
        truth["offset"] = truth["offset"] * torch.tensor([-1.0, 1.0])[:, None, None]
    # Channels last: a third faster on the CPU.
    return augment(pictures, generator).contiguous(memory_format=torch.channels_last), truth


def _save(out: str, state: Path, reader: Reader, optimizer: torch.optim.Optimizer, step: int) -> None:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in reader.state_dict().items()}, out)
    kept: dict[str, Tensor] = {f"net.{key}": value.contiguous() for key, value in reader.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        kept |= {f"adam.{number}.{key}": torch.as_tensor(value).contiguous() for key, value in moments.items()}
    save_file({**kept, "step": torch.tensor(step)}, state)


def _restore(state: Path, reader: Reader, optimizer: torch.optim.Optimizer) -> int:
    kept = load_file(state)
    reader.load_state_dict({key[4:]: value for key, value in kept.items() if key.startswith("net.")})
    moments: dict[int, dict[str, Any]] = {}
    for key, value in kept.items():
        if key.startswith("adam."):
            _, number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(kept["step"])
