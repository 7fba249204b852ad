"""The VAE stage: clips in, a weights folder with a trained VAE and its latent statistics out. One process.

The loss is L1 and squared error on pixels, where what stands out from its surroundings counts several times (things are
a tenth of a picture, and what is asked of it), L1 on spatial gradients at two scales (shape is what a small VAE loses
first, and PSNR does not see it), and a very small KL term. Kernels are moved by Muon, the rest by AdamW. Single frames
come first: at equal processor time that is 4 dB ahead of whole clips from the start (docs/log.md). Then cuts of one,
two and all latent frames, always as many frames a step.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from einops import rearrange
from jaxtyping import Float
from rich.console import Console
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kling import __version__
from kling.media.video import write_mp4
from kling.model.checkpoint import load_part, save_part
from kling.model.config import VAEConfig
from kling.model.vae import VideoVAE
from kling.presets import Preset
from kling.shapes import Latents, Video

from .clips import find_clips, load_pixels
from .config import VAERun
from .ema import EMA
from .optimizer import Muon, schedule, split_for_muon
from .state import append_line, load_state, save_state

_console = Console()


def train_vae(run: VAERun, preset: Preset) -> Path:
    """Train until ``run.steps``, continuing what is in ``run.out``; returns the weights folder."""
    out = Path(run.out)
    if run.threads:
        torch.set_num_threads(run.threads)
    files = find_clips(run.data)
    train = load_pixels(files.train, preset.clip, out / "frames" / "train.npy")
    val = load_pixels(files.val[: run.num_eval], preset.clip, out / "frames" / "val.npy")
    state = VAEState(run, preset)
    state.load(out / "checkpoints" / "vae.pt")
    (out / "run.json").write_text(json.dumps({"stage": "vae", "version": __version__, **asdict(run)}, indent=1))
    _console.print(f"vae: {len(train)} clips to train on, {len(val)} held out; from step {state.step} to {run.steps}")

    saved = time.monotonic()
    while state.step < run.steps:
        started = time.monotonic()
        record = state.update(batch_of(run, state.step, train, preset.vae))
        record["step_s"] = time.monotonic() - started
        if state.step % run.evaluate_every == 0 or state.step == run.steps:
            record |= state.evaluate(val, out / "samples")
            _console.print(_line(state.step, run.steps, record), soft_wrap=True)
        append_line(out / "metrics.jsonl", record)
        if time.monotonic() - saved > 60 * run.checkpoint_minutes:
            state.save(out / "checkpoints" / "vae.pt")
            state.export(out / "weights", train)
            saved = time.monotonic()
    state.save(out / "checkpoints" / "vae.pt")
    state.export(out / "weights", train)
    _console.print(f"weights: {out / 'weights'}")
    return out / "weights"


class VAEState:
    """Everything that a continued run needs: network, average, both optimizers, step."""

    def __init__(self, run: VAERun, preset: Preset):
        torch.manual_seed(run.seed)
        self.run, self.preset, self.step = run, preset, 0
        self.vae = VideoVAE(preset.vae)
        if run.start_from:
            load_part(run.start_from, "vae", self.vae)
        else:
            _narrow_posterior(self.vae)
        if run.freeze_encoder:
            self.vae.net.encoder.requires_grad_(False)
            self.vae.net.quant_conv.requires_grad_(False)
        self.ema = EMA(self.vae, decay=run.ema)
        hidden, rest = split_for_muon(self.vae, keep=("conv_in", "conv_out"))
        hidden, rest = [p for p in hidden if p.requires_grad], [p for p in rest if p.requires_grad]
        self.optimizers = (
            Muon(hidden, lr=run.muon_lr),
            torch.optim.AdamW(rest, lr=run.adam_lr, betas=(0.9, 0.99), weight_decay=0.0),
        )
        factor = schedule("cosine", num_steps=run.steps, warmup=min(50, run.steps), floor=0.02)
        self.schedulers = [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in self.optimizers]

    def update(self, video: Video) -> dict[str, float]:
        """One step. A gradient that is not finite changes nothing and is told in the record."""
        noise = torch.Generator().manual_seed(self.run.seed * 1_000_003 + self.step)
        self.vae.train()
        loss, terms = vae_loss(self.vae, video, self.run, noise)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0))
        finite = bool(np.isfinite(norm))
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            if finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
        self.step += 1
        if finite:
            self.ema.update(self.vae, self.step)
        return {"step": self.step, "loss": loss.item(), **terms, "grad_norm": norm, "skipped": float(not finite)}

    @torch.no_grad()
    def evaluate(self, val: np.ndarray, samples: Path) -> dict[str, float]:
        """PSNR in dB and the edges' relative error on held-out clips with averaged weights; a film to look at."""
        errors, edges, films = [], [], []
        with self.ema.applied(self.vae):
            self.vae.eval()
            for start in range(0, len(val), self.run.batch_size):
                video = pixels(val, range(start, min(start + self.run.batch_size, len(val))))
                made = self.vae.net.decode(self.vae.net.encode(video).latent_dist.mode()).sample.clamp(-1, 1)
                errors.append((made - video).square().mean(dim=(1, 2, 3, 4)))
                edges.append(gradient_distance(made, video) / gradient_distance(torch.zeros_like(video), video))
                films.append(torch.cat([video, made], dim=3))
        mse = torch.cat(errors)
        samples.mkdir(parents=True, exist_ok=True)
        film = rearrange(torch.cat(films)[:8], "b c f h w -> f h (b w) c")
        write_mp4(samples / f"vae-{self.step:06d}.mp4", _to_uint8(film), fps=self.preset.clip.fps)
        return {"psnr_db": float((10 * torch.log10(4 / mse)).mean()), "edge_error": float(torch.stack(edges).mean())}

    def save(self, path: Path) -> None:
        content = {
            "step": self.step,
            "vae": self.vae.state_dict(),
            "ema": self.ema.shadow,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        save_state(path, content)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of this run if there is one. A longer ``steps`` stretches the schedule."""
        content = load_state(path)
        if content is None:
            return
        self.step = content["step"]
        self.vae.load_state_dict(content["vae"])
        self.ema.shadow = content["ema"]
        for optimizer, state, scheduler in zip(self.optimizers, content["optimizers"], self.schedulers, strict=True):
            optimizer.load_state_dict(state)
            # The rate follows this run's own schedule and flags, not the numbers that were saved.
            for group, base in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["initial_lr"] = base
                group["lr"] = base * scheduler.lr_lambdas[0](self.step)
            scheduler.last_epoch = self.step

    @torch.no_grad()
    def export(self, weights: Path, train: np.ndarray) -> None:
        """Averaged weights and the latents' statistics over up to 256 training clips, as part "vae"."""
        with self.ema.applied(self.vae):
            self.vae.eval()
            if not self.run.freeze_encoder:
                chosen = np.linspace(0, len(train) - 1, min(256, len(train))).astype(int)
                raw = [self.vae.net.encode(pixels(train, [i])).latent_dist.mode() for i in chosen]
                self.vae.fit_statistics(torch.cat(raw))
            note = f"kling {__version__}: {self.step} steps of {self.run.batch_size} clips"
            save_part(str(weights), "vae", self.vae, preset=self.preset.name, note=note)


def vae_loss(vae: VideoVAE, video: Video, run: VAERun, noise: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """The training loss and its terms."""
    posterior = vae.net.encode(video).latent_dist
    sample = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise)
    made = decode_unclamped(vae, sample)
    error, weight = made - video, pixel_weight(video, run.contrast_weight)
    distance, square = (weight * error.abs()).mean(), (weight * error.square()).mean()
    edges = gradient_distance(made, video, weight)
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    loss = distance + run.square_weight * square + run.gradient_weight * edges + run.kl_weight * kl
    return loss, {"l1": distance.item(), "edges": edges.item(), "kl": kl.item()}


def decode_unclamped(vae: VideoVAE, raw: Latents) -> Video:
    """Like ``vae.net.decode``, without its clamp: a pixel beyond white would get no gradient and stay there."""
    net = vae.net
    cache: list[Tensor | str | None] = [None] * net._cached_conv_counts["decoder"]
    latents = net.post_quant_conv(raw)
    parts = []
    for i in range(latents.shape[2]):
        first = {"first_chunk": True} if i == 0 else {}
        parts.append(net.decoder(latents[:, :, i : i + 1], feat_cache=cache, feat_idx=[0], **first))
    video = torch.cat(parts, dim=2)
    return video if vae.config.patch_size is None else unpatchify(video, patch_size=vae.config.patch_size)


def pixel_weight(video: Video, contrast: float) -> Float[Tensor, "b 1 f h w"]:
    """What a pixel's error counts: 1, and ``contrast`` more for each unit that it differs from its surroundings.

    Surroundings are 17 pixels wide. The mean over a clip is 1, so that the weight moves attention and not the rate.
    """
    frames = rearrange(video, "b c f h w -> (b f) c h w")
    around = frames
    for kernel in ((17, 1), (1, 17)):  # the same means, of 34 pixels in place of 289
        padding = (kernel[0] // 2, kernel[1] // 2)
        around = avg_pool2d(around, kernel, stride=1, padding=padding, count_include_pad=False)
    differs = rearrange((frames - around).abs().mean(dim=1, keepdim=True), "(b f) c h w -> b c f h w", b=len(video))
    weight = 1 + contrast * differs
    return weight / weight.mean(dim=(2, 3, 4), keepdim=True)


def gradient_distance(made: Video, video: Video, weight: Float[Tensor, "b 1 f h w"] | None = None) -> Tensor:
    """Mean L1 distance of horizontal and vertical differences, at full and half size; pixels count as weighted."""
    error = rearrange(made - video, "b c f h w -> (b f) c h w")
    counts = torch.ones_like(error[:, :1]) if weight is None else rearrange(weight, "b c f h w -> (b f) c h w")
    total = error.new_zeros(())
    for _ in range(2):
        across = counts[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()
        down = counts[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()
        total = total + across.mean() + down.mean()
        error, counts = avg_pool2d(error, 2), avg_pool2d(counts, 2)
    return total / 2


def batch_of(run: VAERun, step: int, clips: np.ndarray, config: VAEConfig) -> Video:
    """What step ``step`` sees, a function of (seed, step): cuts of one length, half of them mirrored.

    Single frames during ``run.image_steps``; later one, two or all latent frames.
    """
    rng = np.random.default_rng((run.seed, step))
    whole = clips.shape[1]
    short = min(whole, 1 + config.stride_frames)
    length = 1 if step < run.image_steps else int(rng.choice([1, short, whole], p=[0.25, 0.4, 0.35]))
    chosen = rng.integers(len(clips), size=max(run.batch_size, run.batch_size * whole // length))
    starts = rng.integers(whole - length + 1, size=len(chosen))
    cuts = np.stack([clips[i, s : s + length] for i, s in zip(chosen, starts, strict=True)])
    mirrored = rng.random(len(chosen)) < 0.5
    cuts[mirrored] = cuts[mirrored, :, :, ::-1]
    return _to_video(cuts)


def pixels(clips: np.ndarray, index) -> Video:
    """b 3 f h w in [-1, 1]."""
    return _to_video(np.stack([clips[i] for i in index]))


def _to_video(cuts: np.ndarray) -> Video:
    video = rearrange(torch.from_numpy(cuts), "b f h w c -> b c f h w").float() / 127.5 - 1
    return video.contiguous(memory_format=torch.channels_last_3d)


def _narrow_posterior(vae: VideoVAE) -> None:
    """Start with little noise in the sampled latents (a deviation of 0.08): at 1 nothing but the mean gets through."""
    last = vae.net.quant_conv
    assert last.bias is not None
    with torch.no_grad():
        last.weight[vae.config.z_dim :] *= 0.1
        last.bias[vae.config.z_dim :] = -5.0


def _to_uint8(film: Tensor) -> np.ndarray:
    return ((film + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def _line(step: int, steps: int, record: dict[str, float]) -> str:
    told = (f"{name} {record[name]:.3g}" for name in ("loss", "psnr_db", "edge_error", "kl", "grad_norm", "step_s"))
    return f"step {step}/{steps}  " + "  ".join(told)
