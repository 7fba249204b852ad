"""What a run is: typed, checked when made, written beside the output as run.json."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from kling.errors import ConfigError
from kling.presets import Preset


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Rectified flow: at which noise, and what is left out how often. Shares are of samples, or of steps where said."""

    time_mean: float = 0.0  # of the logit-normal times
    time_std: float = 1.0
    shift: float | None = None  # of times towards noise; None: the preset's, which is made for its clip
    low_noise_share: float = 0.15  # samples drawn from t < 0.4 instead, where shapes are decided
    object_weight: float = 0.0  # how much more a latent cell counts where a thing is painted
    text_dropout: float = 0.1  # the empty prompt instead: the unconditional case of guidance
    control_dropout: float = 0.35  # no painted plan: text-to-video without one has to stay good too
    chunk_share: float = 0.25  # steps with a noise level a chunk and causal attention between chunks
    chunk_frames: tuple[int, ...] = (1, 2)  # latent frames a chunk, one of these
    first_frame_share: float = 0.2  # steps in which the first latent frame is given, clean
    last_frame_share: float = 0.05  # steps in which the last one is, alone or with the first; none of those with chunks

    def __post_init__(self):
        for name in (n for n in self.__dataclass_fields__ if n.endswith(("_share", "_dropout"))):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError("a share lies between 0 and 1", where=f"objective.{name}={getattr(self, name)}")
        if self.object_weight < 0:
            raise ConfigError("a weight is not negative", where=f"objective.object_weight={self.object_weight}")
        if not self.chunk_frames or min(self.chunk_frames) < 1:
            raise ConfigError("chunks hold at least one latent frame", where=f"chunk_frames={self.chunk_frames}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights are moved."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: the blocks' matrices by Muon, the rest by AdamW
    lr: float = 1e-3
    muon_lr: float = 0.01  # of Muon's matrices; gradients are not clipped then: its steps have one length
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: int = 100  # steps
    schedule: Literal["constant", "cosine", "wsd"] = "wsd"

    def __post_init__(self):
        check_positive(self, "lr", "muon_lr", "clip_norm")


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """Train the preset's DiT on a curated data set with Ray Train and DeepSpeed. Run it again to continue."""

    preset: Annotated[str, tyro.conf.Positional]
    data: str  # URI of a curated, encoded data set
    out: str  # URI: weights/, checkpoints/, metrics.jsonl, run.json; an earlier run in it is continued
    weights: str | None = None  # folder with parts vae and text that encoded the data; None: the packaged ones
    start_from: str | None = None  # weights folder whose dit a new run starts from; None: random weights
    steps: int = 1000
    batch_size: int = 32  # clips a step over all ranks, at the preset's clip; larger buckets take fewer
    micro_batches: int = 1  # passes in which a rank computes its clips of a step, one after the other: less memory
    num_workers: int = 2  # ranks; with GPUs, one a GPU
    sequence_parallel: int = 1  # ranks that share one clip's tokens
    zero_stage: Literal[0, 1, 2, 3] | None = None  # None: 2 on CPU and up to 2B parameters, 3 above
    seed: int = 0
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: float = 0.999
    checkpoint_every: int = 250  # steps; the last step always
    keep_checkpoints: int = 2
    validate_every: int = 250  # steps; 0: never
    num_val: int = 64  # held-out clips of the validation loss
    films_every: int = 500  # steps; OUT/samples shows what the averaged weights make of held-out clips; 0: never.
    # It needs the held-out split, so none without validation.
    num_films: int = 4  # held-out clips in a film
    film_steps: int = 8  # sampling steps of a film
    max_restarts: int = 3  # after lost ranks or nodes, in a row without a new checkpoint
    cache: str | None = None  # local folder for the decoded shards; None: beside the output, or the temp folder
    activation_checkpointing: Literal["none", "blocks"] = "none"

    def __post_init__(self):
        check_positive(
            self, "steps", "batch_size", "micro_batches", "num_workers", "sequence_parallel", "checkpoint_every",
            "keep_checkpoints", "num_films", "film_steps",
        )  # fmt: skip
        if self.num_workers % self.sequence_parallel:
            raise ConfigError(
                "ranks do not divide into groups of one clip",
                where=f"--num-workers {self.num_workers} --sequence-parallel {self.sequence_parallel}",
                fix="Make the first a multiple of the second",
            )

    @property
    def data_ranks(self) -> int:
        """Ranks, or groups of ranks, that see different clips."""
        return self.num_workers // self.sequence_parallel


def scale_of(preset: Preset) -> dict:
    """Defaults of `TrainRun` by the preset's size: above 100M parameters, blocks are computed again in backward (a clip
    of such a preset fills a GPU otherwise); above 2B, the GPUs of a node share a clip, and no films."""
    from kling.model.flops import num_parameters  # imports torch, which --help needs not

    count = num_parameters(preset.dit)
    if count < 2e9:
        return {} if count < 1e8 else {"activation_checkpointing": "blocks"}
    return {
        "num_workers": 8,
        "sequence_parallel": 8,
        "batch_size": 1,
        "activation_checkpointing": "blocks",
        "films_every": 0,  # one rank would sample while seven wait, and needs room for a whole model more
    }


@dataclass(frozen=True, kw_only=True)
class VAERun:
    """Train the preset's VAE on clips, in one process."""

    preset: Annotated[str, tyro.conf.Positional]
    data: str  # a curated data set (data curate --no-encode is enough), or a folder of mp4 files
    out: str  # local folder: weights/, checkpoints/, metrics.jsonl, samples/; an earlier run in it is continued
    steps: int = 4000  # the length the learning rate's decay is made for
    batch_size: int = 2  # whole clips a step, or as many frames in shorter cuts
    image_steps: int = 1000  # first steps on single frames: space before time
    muon_lr: float = 0.02
    adam_lr: float = 1.5e-3
    gradient_weight: float = 1.0  # of the L1 distance of spatial gradients: edges, and so shape
    square_weight: float = 2.0  # of the squared distance: an object that is missing counts more than a rough floor
    contrast_weight: float = 6.0  # how much more a pixel counts that stands out from its surroundings: things are small
    kl_weight: float = 1e-6  # a latent element; small, the latents are normalised afterwards
    ema: float = 0.998
    start_from: str | None = None  # weights folder whose vae a new run starts from; None: random weights
    freeze_encoder: bool = False  # latents stay what they are, for a DiT that was trained on them; the decoder learns
    checkpoint_minutes: float = 5.0
    evaluate_every: int = 100  # steps
    num_eval: int = 32  # held-out clips
    threads: int = 0  # 0: as many as torch takes
    seed: int = 0

    def __post_init__(self):
        check_positive(self, "steps", "batch_size", "muon_lr", "adam_lr", "evaluate_every", "num_eval")
        if self.freeze_encoder and not self.start_from:
            raise ConfigError(
                "a frozen encoder has to come from somewhere", where="--freeze-encoder", fix="Add --start-from WEIGHTS"
            )


@dataclass(frozen=True, kw_only=True)
class TextRun:
    """Train the preset's text encoder on captions and their scene graphs, in one process."""

    preset: Annotated[str, tyro.conf.Positional]
    data: str  # folder of playground clips: their sidecars are read
    out: str  # local folder: weights/, checkpoints/, metrics.jsonl; an earlier run in it is continued
    start_from: str = ""  # URI of a weights folder whose text encoder to begin with; the head starts anew
    steps: int = 1500
    batch_size: int = 64  # captions
    lr: float = 2e-3
    checkpoint_minutes: float = 2.0
    evaluate_every: int = 100  # steps
    threads: int = 0  # 0: as many as torch takes
    seed: int = 0

    def __post_init__(self):
        check_positive(self, "steps", "batch_size", "lr", "evaluate_every")


def check_positive(run: object, *names: str) -> None:
    """Raises ConfigError naming the first field that is not above zero."""
    for name in names:
        if getattr(run, name) <= 0:
            flag = "--" + name.replace("_", "-")
            raise ConfigError("must be above zero", where=f"{flag} {getattr(run, name)}")
