"""`python -m data retrieval CLIPS`: does the video-text embedder know which caption belongs to which clip?

Of ``--among`` clips, which does a caption tell of, and which of their captions tells of a clip? And is a clip nearer to
its own caption than to one that is wrong in one thing (`data.playground.mistakes`) and says the rest in the same words?
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from data.playground import captions
from data.playground.mistakes import MISTAKES
from data.study import told
from data.train_embedder import files_of
from kling.errors import InputError
from kling.media.video import read_frames
from kling.prompt.graph import SceneGraph
from kling.quality.semantic import VideoTextEmbedder
from kling.scene.plan import Sidecar


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Captions against clips, and right captions against wrong ones."""

    clips: tyro.conf.Positional[str]
    """Folder of playground clips (mp4 and json) that nothing was taught on."""
    num_clips: int = 400
    among: int = 16
    weights: Path | None = None
    """Of the playground's embedder (default: the packaged ones)."""
    embedder: Path | None = None
    """Folder of a SigLIP or CLIP to measure in its place."""


def command(arguments: list[str]) -> int:
    """`python -m data retrieval`."""
    options = tyro.cli(Retrieval, args=arguments, prog="python -m data retrieval")
    files = files_of((options.clips,))[: options.num_clips]
    if len(files) < options.among:
        raise InputError(f"{len(files)} clips are fewer than {options.among}", where=options.clips, fix="--among fewer")
    cv2.setNumThreads(1)
    chosen, clips, sidecars = _embedder(options), [], []
    for path in track(files, description="looking", transient=True):
        clips.append(chosen.embed_clip(read_frames(path.with_suffix(".mp4"))[0]))
        sidecars.append(Sidecar.model_validate_json(path.read_bytes()))
    found = retrieved(chosen, np.stack(clips), sidecars, options.among) | mistakes(chosen, np.stack(clips), sidecars)
    console = Console(width=160)
    console.print("| question | right |", "|---|---|", sep="\n")
    for name, hits in found.items():
        console.print(f"| {name} | {told(hits)} |", highlight=False, markup=False)
    return 0


def _embedder(options: Retrieval) -> VideoTextEmbedder:
    from kling.sight import embedder, foreign

    if options.embedder is not None:
        return foreign.ForeignEmbedder(options.embedder)
    return embedder.load(options.weights) if options.weights else embedder.packaged()


def retrieved(
    embedder: VideoTextEmbedder, clips: np.ndarray, sidecars: list[Sidecar], among: int
) -> dict[str, list[bool]]:
    """By question: whether each answer was right. ``clips``: n d."""
    hits = defaultdict[str, list[bool]](list)
    for language, name in (("en", "English"), ("ja", "Japanese")):
        texts = [next((c.text for c in one.captions if c.language == language), "") for one in sidecars]
        read = embedder.embed_text(texts)
        for start in range(0, len(clips) - among + 1, among):
            alike = clips[start : start + among] @ read[start : start + among].T  # clips by captions
            own = np.arange(among)
            hits[f"1 clip of {among}, by a caption, {name}"] += list(alike.argmax(0) == own)
            hits[f"1 caption of {among}, by a clip, {name}"] += list(alike.argmax(1) == own)
    return dict(hits)


def mistakes(embedder: VideoTextEmbedder, clips: np.ndarray, sidecars: list[Sidecar]) -> dict[str, list[bool]]:
    """By mistake: whether the clip is nearer to the right caption, in both languages."""
    asked: list[tuple[str, int]] = []
    texts: list[str] = []
    for i, sidecar in enumerate(sidecars):
        graph, rng = SceneGraph.from_json(sidecar.graph), np.random.default_rng(sidecar.seed)
        for name, mistake in MISTAKES.items():
            other = mistake(graph, rng)
            for caption in sidecar.captions if other else ():
                seed = int(rng.integers(2**31))
                both = [
                    captions.say(one, caption.language, caption.family, np.random.default_rng(seed), sidecar.split)
                    for one in (graph, other or graph)
                ]
                if both[0] != both[1]:
                    asked.append((name, i))
                    texts += both
    read, hits = embedder.embed_text(texts), defaultdict[str, list[bool]](list)
    for k, (name, i) in enumerate(asked):
        hits[f"right caption, not one wrong in: {name}"].append(bool(clips[i] @ (read[2 * k] - read[2 * k + 1]) > 0))
    return {
        f"right caption, not one wrong in: {name}": hits[f"right caption, not one wrong in: {name}"]
        for name in MISTAKES
    }
