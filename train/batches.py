"""Which clips each step sees, and the tensors made of them.

The order is a function of (seed, step) alone: a run can stop anywhere, and continue on any number of ranks. In one step
all ranks take clips of one bucket, and equally many, so that none waits for another. Every random choice about a sample
is drawn from a generator of its own, named by (seed, step, place in the batch).
"""

import math
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kling.errors import ConfigError, InputError
from kling.model.controls import Controls
from kling.presets import Preset

from .cache import Bucket, Split
from .config import TrainRun

_BLOCK = 1024  # steps whose buckets are drawn at once


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a step. Latents b c f h w; text b l d, zero where the mask is False."""

    step: int
    places: tuple[int, ...]  # of these samples in the global batch
    bucket: str
    clip_ids: tuple[str, ...]
    latents: Tensor
    text: Tensor
    text_mask: Tensor
    controls: Controls
    empty_text: Tensor  # l d

    def parts(self, number: int) -> list["Batch"]:
        """As many batches of equally many clips, which ``number`` divides."""
        size = len(self.places) // number
        return [self._part(slice(i * size, (i + 1) * size)) for i in range(number)] if number > 1 else [self]

    def _part(self, clips: slice) -> "Batch":
        controls = {f.name: getattr(self.controls, f.name) for f in fields(self.controls)}
        return replace(
            self,
            places=self.places[clips],
            clip_ids=self.clip_ids[clips],
            latents=self.latents[clips],
            text=self.text[clips],
            text_mask=self.text_mask[clips],
            controls=replace(self.controls, **{k: v[clips] for k, v in controls.items() if v is not None}),
        )

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            latents=self.latents.to(device),
            text=self.text.to(device),
            text_mask=self.text_mask.to(device),
            controls=self.controls.to(device),
        )


class Order:
    """The bucket of each step, and the clip of each place in it.

    Buckets are drawn in proportion to their clips. Each bucket is its own endless stream of shuffles, read on where its
    last step ended: no clip is left over at the end of an epoch, whatever divides what.

    Args:
        sizes: clips of each bucket.
        batch_sizes: global batch of each bucket.
    """

    def __init__(self, sizes: list[int], batch_sizes: list[int], seed: int):
        if not sizes or min(sizes) < 1:
            raise InputError("no clips in the split", where=f"{sizes}")
        self.sizes, self.batch_sizes, self.seed = sizes, batch_sizes, seed
        # A step of a bucket shows batch_size clips: divide, so that every clip is seen equally often.
        weight = np.array(sizes) / np.array(batch_sizes)
        self._share = weight / weight.sum()

    def bucket(self, step: int) -> int:
        return int(self._block(step // _BLOCK)[step % _BLOCK])

    def clips(self, step: int) -> np.ndarray:
        """Indices into the step's bucket, one a place of the global batch."""
        bucket = self.bucket(step)
        first = self._steps_before(step, bucket) * self.batch_sizes[bucket]
        wanted = range(first, first + self.batch_sizes[bucket])
        size = self.sizes[bucket]
        return np.array([self._shuffle(bucket, i // size)[i % size] for i in wanted])

    @lru_cache(maxsize=8)  # noqa: B019 (one order lives as long as its run)
    def _shuffle(self, bucket: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 1, bucket, epoch)).permutation(self.sizes[bucket])

    @lru_cache(maxsize=4)  # noqa: B019
    def _block(self, block: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 2, block)).choice(len(self.sizes), size=_BLOCK, p=self._share)

    @lru_cache(maxsize=4)  # noqa: B019
    def _blocks_before(self, block: int) -> np.ndarray:
        """Steps of each bucket in all earlier blocks."""
        if block == 0:
            return np.zeros(len(self.sizes), np.int64)
        total = np.zeros(len(self.sizes), np.int64)
        for earlier in range(block):
            rng = np.random.default_rng((self.seed, 2, earlier))
            total += np.bincount(rng.choice(len(self.sizes), size=_BLOCK, p=self._share), minlength=len(self.sizes))
        return total

    def _steps_before(self, step: int, bucket: int) -> int:
        block, rest = divmod(step, _BLOCK)
        return int(self._blocks_before(block)[bucket] + np.count_nonzero(self._block(block)[:rest] == bucket))


def make_order(split: Split, run: TrainRun, preset: Preset) -> Order:
    """The order of this run over a split. Raises ConfigError where a bucket's batch does not divide over the ranks."""
    sizes, batch_sizes = [], []
    for bucket in split.buckets:
        size = bucket_batch_size(run.batch_size, clip_tokens(preset), math.prod(bucket.latents.shape[2:]))
        check_divides(size, run.data_ranks, bucket.name, run.micro_batches)
        sizes.append(len(bucket))
        batch_sizes.append(size)
    return Order(sizes, batch_sizes, run.seed)


def clip_tokens(preset: Preset) -> int:
    """Latent cells of the preset's own clip: what the batch size is stated for."""
    clip, vae = preset.clip, preset.vae
    return vae.latent_frames(clip.num_frames) * (clip.height_px // vae.stride_px) * (clip.width_px // vae.stride_px)


def bucket_batch_size(batch_size: int, own_tokens: int, bucket_tokens: int) -> int:
    """The global batch of a bucket: the preset's, halved while a step would hold more tokens than at the preset's clip.

    Halves only, so that it does not depend on the ranks, which must divide it.
    """
    size = batch_size
    while size > 1 and size % 2 == 0 and size * bucket_tokens > batch_size * own_tokens:
        size //= 2
    return size


def check_divides(batch_size: int, data_ranks: int, bucket: str, micro_batches: int = 1) -> None:
    """Raises ConfigError unless each rank gets equally many clips, and each of its micro-batches too."""
    shares = data_ranks * micro_batches
    if batch_size % shares:
        low = max(1, batch_size // shares) * shares
        raise ConfigError(
            f"a batch of {batch_size} clips (bucket {bucket}) does not divide over {data_ranks} ranks"
            + (f" x {micro_batches} micro-batches" if micro_batches > 1 else ""),
            where="--batch-size",
            fix=f"Use {low} or {low + shares} clips a step for that bucket, or other --num-workers"
            + (" or --micro-batches" if micro_batches > 1 else ""),
        )


def sample_rng(seed: int, step: int, place: int) -> np.random.Generator:
    """The generator of every choice about one sample."""
    return np.random.default_rng((seed, 3, step, place))


class Batches:
    """This rank's batches, step after step, made ahead by a thread.

    Args:
        rank, ranks: among those that see different clips.
    """

    def __init__(self, split: Split, order: Order, *, rank: int, ranks: int):
        self.split, self.order, self.rank, self.ranks = split, order, rank, ranks

    def make(self, step: int) -> Batch:
        """The rank's places are a run of the global batch."""
        which = self.order.bucket(step)
        bucket, clips = self.split.buckets[which], self.order.clips(step)
        each = len(clips) // self.ranks
        places = range(self.rank * each, (self.rank + 1) * each)
        return collate(self.split, bucket, [int(clips[p]) for p in places], step, tuple(places), self.order.seed)

    def clip_ids(self, step: int) -> list[str]:
        """Of the whole step, over all ranks."""
        bucket = self.split.buckets[self.order.bucket(step)]
        return [bucket.clip_ids[int(clip)] for clip in self.order.clips(step)]

    def stream(self, step: int, ahead: int = 3) -> "Stream":
        return Stream(self, step, ahead)


class Stream(Iterator[Batch]):
    """Batches from a step on. `close` ends its thread."""

    def __init__(self, batches: Batches, step: int, ahead: int):
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(batches, step), name="batches", daemon=True)
        self._thread.start()

    def _work(self, batches: Batches, step: int) -> None:
        while not self._closed.is_set():
            try:
                made = batches.make(step)
            except Exception as error:  # noqa: BLE001 (raised again where the batch is wanted)
                made = error
            while not self._closed.is_set():
                try:
                    self._ready.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(made, Exception):
                return
            step += 1

    def __next__(self) -> Batch:
        made = self._ready.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        self._closed.set()
        self._thread.join()


def collate(split: Split, bucket: Bucket, clips: list[int], step: int, places: tuple[int, ...], seed: int) -> Batch:
    """Stack these clips; one caption each, drawn by the sample's generator."""
    rows = bucket.rows[clips]
    states = []
    for clip, place in zip(clips, places, strict=True):
        spans = bucket.captions[clip]
        first, length = spans[int(sample_rng(seed, step, place).integers(len(spans)))]
        states.append(split.text[first : first + length])
    longest = max(len(s) for s in states)
    text = np.zeros((len(states), longest, split.text.shape[1]), np.float32)
    mask = np.zeros(text.shape[:2], bool)
    for i, s in enumerate(states):
        text[i, : len(s)], mask[i, : len(s)] = s, True
    return Batch(
        step=step,
        places=places,
        bucket=bucket.name,
        clip_ids=tuple(bucket.clip_ids[i] for i in clips),
        latents=_tensor(bucket.latents[rows]),
        text=torch.from_numpy(text),
        text_mask=torch.from_numpy(mask),
        controls=Controls(
            **{name: _tensor(maps[rows]) for name, maps in bucket.controls.items()},
            phrases=_tensor(split.phrases[bucket.phrases[rows]]),
            fps=_tensor(bucket.fps[rows]),
        ),
        empty_text=torch.from_numpy(split.empty_text),
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
