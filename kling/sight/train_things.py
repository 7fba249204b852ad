"""`python -m kling.sight train-things`: teach the network that says what tracked things are and do.

    python -m data playground --num-clips 2000 --out out/clips
    python -m kling.sight train-things --clips out/clips --out kling/sight/things.safetensors

What is measured in the clips takes most of the time; `--cache FOLDER` keeps it for another run, fifty clips a file.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as fn

from kling.sight.crops import mirror
from kling.sight.examples import Example, collect, is_seen
from kling.sight.things import FRAME, UNITS, ThingNet

_PART = 50  # clips in one file of the cache
_NOISE = 0.03  # added to numbers, which are of about unit size
_CLIPS = 24  # a step


@dataclass(frozen=True, kw_only=True)
class Options:
    """Teach the network that names things, on playground clips of the training split."""

    clips: tuple[str, ...]  # folders of mp4 and json
    out: str = "things.safetensors"
    number: int = 0  # of clips; 0: all
    steps: int = 12_000  # of 24 clips
    learning_rate: float = 2e-3
    seed: int = 0
    cache: Path | None = None  # folder: what is measured in the clips is kept there, and taken from there


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    options = tyro.cli(Options, args=arguments, prog="python -m kling.sight train-things", description=Options.__doc__)
    files = sorted(path for folder in options.clips for path in Path(folder).glob("*.json"))
    files = files[: options.number or len(files)]
    data = _kept(files, options.cache)
    print(f"{len(data['seen'])} things in {len(files)} clips", flush=True)
    torch.manual_seed(options.seed)
    net = ThingNet()
    teach(net, data, options)
    save_file({key: value.half().contiguous() for key, value in net.state_dict().items()}, options.out)
    return 0


def _kept(files: list[Path], cache: Path | None) -> dict[str, Tensor]:
    parts = []
    for start in range(0, len(files), _PART):
        part = files[start : start + _PART]
        kept = None if cache is None else cache / f"{part[0].stem}-{len(part)}.safetensors"
        if kept is not None and kept.exists():
            stored = load_file(kept)
            parts.append(stored | {name: stored[name].bool() for name in ("seen", "truly")})
            continue
        parts.append(tensors(collect(part, soft=True)))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            half = kept.with_suffix(".part")
            save_file({name: value.contiguous() for name, value in parts[-1].items()}, half)
            half.replace(kept)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def tensors(examples: list[Example]) -> dict[str, Tensor]:
    """All examples, b first; what is not known is nan or -1."""
    truths = [example.truth for example in examples]
    places = np.stack([example.places_px for example in examples])
    drift = np.stack([example.views.drift_px for example in examples])
    found = {
        "crops": np.stack([example.views.crops for example in examples]),
        "clip": np.array([example.clip for example in examples]),
        "numbers": np.stack([example.views.numbers for example in examples]),
        "seen": np.stack([example.views.seen for example in examples]),
        "shape": np.array([truth.shape for truth in truths]),
        "size": np.array([truth.size for truth in truths]),
        "action": np.stack([truth.action for truth in truths]),
        "middle": np.stack([truth.centre_px for truth in truths]) - places,
        "slide": np.stack([truth.slide_px for truth in truths]) - drift,
        "velocity": np.stack([truth.velocity_m_s for truth in truths]),
        "depth": np.log(np.stack([np.maximum(truth.depth_m, 0.1) for truth in truths]))[..., None],
        "floor": np.stack([truth.floor for truth in truths])[..., None],
        "visible": np.stack([truth.visible for truth in truths])[..., None],
        "truly": np.stack([is_seen(truth) for truth in truths]),
    }
    for name in FRAME:
        found[name] = (found[name] / UNITS[name]).astype(np.float32)
    found["middle"] = np.where(np.abs(found["middle"]) < 4, found["middle"], np.nan)  # another thing's pixels
    return {name: torch.from_numpy(value) for name, value in found.items()}


def mirrored(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Left and right exchanged."""
    order, signs = (torch.from_numpy(part) for part in mirror())
    out = data | {"numbers": data["numbers"][..., order] * signs, "crops": data["crops"].flip(-1)}
    for name in ("middle", "slide", "velocity"):
        out[name] = data[name] * torch.tensor([-1.0, 1.0, 1.0][: data[name].shape[-1]])
    return out


def teach(net: ThingNet, data: dict[str, Tensor], options: Options) -> None:
    """Every step the other way round, left and right exchanged."""
    sides = [data, mirrored(data)]
    clips = _rows_of_clips(data["clip"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    generator, mean, start = torch.Generator().manual_seed(options.seed), dict[str, float](), time.monotonic()
    for step in range(options.steps):
        rate = options.learning_rate * min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.02 + 0.98 * (1 + np.cos(np.pi * step / options.steps)) / 2)
        chosen = [clips[i] for i in torch.randint(len(clips), (_CLIPS,), generator=generator).tolist()]
        index = torch.cat(chosen)
        batch = {name: value[index] for name, value in sides[step % 2].items()}
        noise = torch.randn(batch["numbers"].shape, generator=generator)
        shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
        look = net.looks(batch["crops"].roll(shift, dims=(-2, -1)), batch["seen"])
        number = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor([len(rows) for rows in chosen]))
        clip, frame = net.over_time(look, batch["numbers"] + _NOISE * noise, batch["seen"], number)
        parts = losses(clip, frame, batch)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        mean = {k: 0.98 * mean.get(k, float(v.detach())) + 0.02 * float(v.detach()) for k, v in parts.items()}
        if (step + 1) % 100 == 0:
            told = " ".join(f"{name} {value:.3f}" for name, value in mean.items())
            print(f"{step + 1} {told} {time.monotonic() - start:.0f} s", flush=True)


def _rows_of_clips(clip: Tensor) -> list[Tensor]:
    """Rows of each clip that has any."""
    order = clip.argsort(stable=True)
    return list(order.split(clip.unique(return_counts=True)[1].tolist()))


def losses(clip: dict[str, Tensor], frame: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weighted parts of the loss; frames count in which the thing was found and truly is there."""
    said = batch["action"][:, 0].isfinite()
    parts = {
        "shape": fn.cross_entropy(clip["shape"], batch["shape"], label_smoothing=0.02),
        "size": fn.cross_entropy(clip["size"], batch["size"], label_smoothing=0.02),
        "action": 4 * fn.binary_cross_entropy_with_logits(clip["action"][said], batch["action"][said]),
    }
    there = (batch["seen"] & batch["truly"])[..., None]
    for name, weight in (("middle", 0.5), ("slide", 1.5)):  # lengths of what is wrong, as they are judged
        use = there[..., 0] & batch[name].isfinite().all(-1)
        parts[name] = weight * ((frame[name][use] - batch[name][use]).square().sum(-1) + 1e-4).sqrt().mean()
    for name, weight in (("velocity", 2.0), ("depth", 4.0)):
        use = there.expand_as(batch[name]) & batch[name].isfinite()
        parts[name] = weight * fn.smooth_l1_loss(frame[name][use], batch[name][use], beta=0.1)
    for name, weight in (("floor", 0.5), ("visible", 0.5)):
        parts[name] = weight * fn.binary_cross_entropy_with_logits(frame[name][there], batch[name][there])
    return parts
