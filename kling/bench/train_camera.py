"""`python -m kling.bench train-camera`: teach the names of camera moves on rendered playground clips.

    python -m kling.bench train-camera --clips out/clips --out kling/bench/camera.safetensors

Mirroring a clip and playing it backwards both change its moves in a known way: each clip teaches four times. Motions
of a picture add up, so two moves at once, of which there are few clips, are taught as sums.
"""

from dataclasses import dataclass

import numpy as np
import torch
import tyro
from rich.progress import track
from safetensors.torch import save_file
from torch.nn import functional as fn

from kling.bench import background
from kling.bench.camera_reader import MIRROR, MIRROR_KINDS, CameraNet, features, labels
from kling.bench.reconstruct import clips
from kling.bench.train_reader import masks

_BATCH = 256
_SUMS = 0.35  # share of examples that are turned into two moves at once


@dataclass(frozen=True, kw_only=True)
class Options:
    """Teach the evaluator the names of camera moves on playground clips of the training split."""

    clips: tuple[str, ...]  # folders of mp4 and json
    out: str = "camera.safetensors"
    steps: int = 2500
    seed: int = 0


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    options = tyro.cli(Options, args=arguments, prog="python -m kling.bench train-camera", description=Options.__doc__)
    motions, names = measured(options.clips)
    net = teach(motions, names, steps=options.steps, seed=options.seed)
    save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, options.out)
    print(f"{len(motions)} clips: {options.out}")
    return 0


def measured(folders: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """n 8 background motions at 8 frames a second, and n 8 labels (-1, 0, 1)."""
    motions, names = [], []
    for folder in folders:
        for frames, sidecar in track(list(clips(folder, 0)), description=folder):
            things, _ = masks(sidecar, np.arange(len(frames)))
            motions.append(background.steady(frames, things >= 0) * sidecar.fps / 8.0)
            names.append(labels(sidecar.plan.camera.moves))
    return np.array(motions), np.array(names)


def teach(motions: np.ndarray, names: np.ndarray, *, steps: int, seed: int) -> CameraNet:
    """A network of which name belongs to which motion."""
    torch.manual_seed(seed)
    motions = np.concatenate([motions, motions * MIRROR])
    names = np.concatenate([names, names * MIRROR_KINDS])
    motions, names = np.concatenate([motions, -motions]), np.concatenate([names, -names])
    net, given, wanted = CameraNet(), features(motions, 8.0), torch.from_numpy(names).long() + 1
    single = (wanted != 1).sum(1) == 1
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        index = torch.randint(len(given), (_BATCH,))
        speed, jitter = 0.8 + 0.4 * torch.rand(_BATCH, 1), torch.randn(_BATCH, given.shape[1]) * 0.02
        seen, said = given[index] * speed, wanted[index]
        other = torch.randint(len(given), (_BATCH,))
        adds = (torch.rand(_BATCH) < _SUMS) & single[index] & single[other] & ~both(said, wanted[other])
        seen = seen + given[other] * adds[:, None]
        said = torch.where(adds[:, None], said + wanted[other] - 1, said)
        loss = fn.cross_entropy(net(seen + jitter).flatten(0, 1), said.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def both(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """b: whether two rows of labels (b 8, 1 is none) name the same kind."""
    return ((a != 1) & (b != 1)).any(dim=1)
