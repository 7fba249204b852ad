"""What travels through the recipe: a Source becomes Units of a few Clips each.

A unit is small enough to sit in memory (UNIT_BYTES of pixels), and is committed on its own: that is what makes a killed
run resume without losing or repeating a clip.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kling.presets import ClipSpec
from kling.shapes import Frames

UNIT_BYTES = 48 * 2**20
# Raised whenever a stage changes what it writes, so that old and new rows never mix in one data set.
RECIPE_VERSION = 6


class FilteredError(Exception):
    """The source is sound but gives nothing; the text is the reason, for the ledger."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file found in the input."""

    name: str  # "INPUT_FOLDER/path/in/it.mp4": what the data set calls it, on every machine
    uri: str
    fingerprint: str  # changes when the file does
    sidecar: str | None = None  # URI of the ground truth beside it

    @property
    def key(self) -> str:
        """File-system-safe name of its records."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Steps that are off unless asked for. Each changes the rows, so they are part of the recipe."""

    shots: Literal["content", "transnet"] = "content"  # which detector finds the cuts
    overlay_text: bool = False  # score the area that text covers (extra `ocr`)
    embedder: str = ""  # folder of a SigLIP or CLIP; "": the playground's
    embedder_sum: str = ""  # which weights are in it
    keep_original: bool = False  # also copy the packets of clips that begin at a key frame
    caption_model: str = ""  # name of the vision-language model that captions; "": templates
    caption_fallback: Literal["", "template"] = ""  # what a clip gets that the model does not caption; "": it fails


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the bytes of the result besides the sources themselves."""

    preset: str
    spec: ClipSpec
    encoder: str  # digest of the VAE and text weights; "" without encoding
    options: Options = field(default_factory=Options)
    version: int = RECIPE_VERSION


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one source file: a row of the ledger. See `data.ledger` for the sums that must hold."""

    source: str
    fingerprint: str
    state: Literal["done", "filtered", "failed"]
    stage: str = ""  # where it failed or was filtered
    reason: str = ""
    warnings: tuple[str, ...] = ()  # what was wrong with a file that still gave clips
    num_units: int = 0
    num_shots: int = 0
    num_short_shots: int = 0  # shorter than one clip: they give none
    num_clips: int = 0  # planned; = rows + failed clips
    num_rows: int = 0
    num_failed_clips: int = 0
    duration_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)  # working time of each stage; not part of the data set


@dataclass(kw_only=True)
class Clip:
    """A stretch of fixed length; stages fill it in place as it passes."""

    clip_id: str
    index: int  # in its source
    start_s: float
    end_s: float
    split: str
    pixels: Frames
    crop_px: tuple[int, int, int, int] | None = None  # x0 y0 x1 y1 of the stored picture: what letterbox bars leave
    still: np.ndarray | None = None  # h w 3 uint8: its middle frame, larger, for steps that read it
    original: bytes | None = None  # the source's own packets (Matroska), where the clip begins at a key frame
    scores: dict[str, float] = field(default_factory=dict)
    look: str = ""  # perceptual hash (kling.shards.SCHEMA)
    captions: list[dict[str, str]] = field(default_factory=list)
    flow: np.ndarray | None = None  # f-1 h w 2 of `kling.quality.motion.flows`, for steps after scoring
    labels: str | None = None
    annotation: str | None = None  # JSON of kling.sight.annotation.Annotation
    plan: str | None = None
    track: str | None = None
    latents: np.ndarray | None = None  # c f h w float16
    text_states: list[np.ndarray] = field(default_factory=list)  # l d float16 each
    failed: str | None = None  # "stage: error"; later stages leave it alone


@dataclass(kw_only=True)
class Unit:
    """Some clips of one source. A source without clips is one unit without clips, which carries its outcome."""

    source: Source
    index: int
    clips: list[Clip]
    sidecar: str | None = None  # JSON of kling.scene.plan.Sidecar
    outcome: Outcome | None = None  # on the last unit: everything known about the source, apart from the clips' fate
    seconds: dict[str, float] = field(default_factory=dict)


def clip_id(source: str, start_s: float, end_s: float) -> str:
    """The same on every run and every machine."""
    return hashlib.sha256(f"{source}\0{start_s:.6f}\0{end_s:.6f}".encode()).hexdigest()[:24]
