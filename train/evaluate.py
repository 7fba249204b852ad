"""The loss on held-out clips: always the same clips, times and noise, so that steps and runs can be compared."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kling.diffusion.flow import interpolate
from kling.model.controls import Controls

from .batches import collate, sample_rng
from .cache import Split
from .config import TrainRun
from .objective import Draw, cell_weight, loss_of
from .ranks import Ranks

_CLIPS = 4  # a forward pass


@torch.no_grad()
def validation_loss(model: nn.Module, split: Split, run: TrainRun, ranks: Ranks) -> dict[str, float]:
    """``val_loss`` with the painted plan, ``val_loss_text`` without, of the weights as they are. All ranks call it.

    Times are spread evenly over (0, 1); the same on any number of ranks.
    """
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    for bucket in split.buckets:
        count = min(run.num_val, len(bucket))
        group = _CLIPS * ranks.data_ranks
        for start in range(0, count, group):
            # Ranks beyond the last clip compute the last one again and count it zero times: all make the same calls.
            places = [start + ranks.data_rank * _CLIPS + i for i in range(_CLIPS)]
            counted = torch.tensor([float(p < count) for p in places])
            places = [min(p, count - 1) for p in places]
            batch = collate(split, bucket, places, 0, tuple(places), 0)
            noise = np.stack(
                [sample_rng(0, -1 % 2**32, p).standard_normal(batch.latents.shape[1:], np.float32) for p in places]
            )
            time = torch.tensor([(p + 0.5) / count for p in places])[:, None].expand(-1, batch.latents.shape[2])
            drawn = Draw(
                noisy=interpolate(batch.latents, torch.from_numpy(noise), time),
                noise=torch.from_numpy(noise),
                time=time,
                weight=torch.ones_like(time),
                cell_weight=cell_weight(batch, run.objective.object_weight),
                text=batch.text,
                text_mask=batch.text_mask,
                controls=batch.controls,
                chunk=None,
            ).to(ranks.device)
            _, error = loss_of(model, batch.to(ranks.device), drawn)
            _, bare = loss_of(model, batch.to(ranks.device), replace(drawn, controls=Controls(fps=drawn.controls.fps)))
            counted = counted.double()
            totals += torch.stack(
                [error.mean(1).cpu().double() @ counted, bare.mean(1).cpu().double() @ counted, counted.sum()]
            )
    model.train()
    totals = ranks.total(totals)
    return {"val_loss": float(totals[0] / totals[2]), "val_loss_text": float(totals[1] / totals[2])}
