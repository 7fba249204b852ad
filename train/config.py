"""What a run is: typed, checked when made, written beside the output as run.json."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from kling.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class VAERun:
    """Train the preset's VAE on clips, in one process."""

    preset: Annotated[str, tyro.conf.Positional]
    data: str  # a curated data set (data curate --no-encode is enough), or a folder of mp4 files
    out: str  # local folder: weights/, checkpoints/, metrics.jsonl, samples/; an earlier run in it is continued
    steps: int = 3000  # the length the learning rate's decay is made for
    batch_size: int = 4  # clips
    muon_lr: float = 0.02
    adam_lr: float = 1.5e-3
    gradient_weight: float = 1.0  # of the L1 distance of spatial gradients: edges, and so shape
    kl_weight: float = 1e-4  # a latent element; small, the latents are normalised afterwards
    ema: float = 0.998
    checkpoint_minutes: float = 5.0
    evaluate_every: int = 100  # steps
    num_eval: int = 32  # held-out clips
    threads: int = 0  # 0: as many as torch takes
    seed: int = 0

    def __post_init__(self):
        check_positive(self, "steps", "batch_size", "muon_lr", "adam_lr", "evaluate_every", "num_eval")


def check_positive(run: object, *names: str) -> None:
    """Raises ConfigError naming the first field that is not above zero."""
    for name in names:
        if getattr(run, name) <= 0:
            flag = "--" + name.replace("_", "-")
            raise ConfigError("must be above zero", where=f"{flag} {getattr(run, name)}")
