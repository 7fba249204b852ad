"""One clip: seed -> graph -> plan -> track -> frames -> mp4 and sidecar. The same seed gives the same clip anywhere."""

import atexit
import io
import json
from dataclasses import dataclass
from functools import cache

from data.playground import splits
from data.playground.captions import captions
from data.playground.render import Renderer
from data.playground.sample import sample
from kling import storage
from kling.errors import InternalError
from kling.media.video import write_mp4
from kling.prompt.graph import SceneGraph
from kling.scene.fulfil import decide
from kling.scene.plan import ScenePlan, SceneTrack, Sidecar
from kling.shapes import Frames

_ATTEMPTS = PLAN_SEEDS = 20  # plans are drawn from seed * PLAN_SEEDS + attempt


@dataclass(frozen=True, kw_only=True)
class Format:
    """Size and length of every clip of a run."""

    width_px: int = 64
    height_px: int = 64
    num_frames: int = 17
    fps: float = 8.0

    @property
    def duration_s(self) -> float:
        return (self.num_frames - 1) / self.fps


def stage(seed: int, form: Format) -> tuple[SceneGraph, ScenePlan, SceneTrack]:
    """What happens in the clip: the first drawn graph of this seed that the simulation fulfils.

    Raises:
        InternalError: none of many graphs could be staged.
    """
    for attempt in range(_ATTEMPTS):
        graph = sample(seed, attempt=attempt)
        plan, track, missing = decide(
            graph,
            seed=seed * _ATTEMPTS + attempt,
            duration_s=form.duration_s,
            fps=form.fps,
            aspect=form.width_px / form.height_px,
            attempts=5,
        )
        if not missing:
            return graph, plan, track
    raise InternalError(
        "no graph of this seed can be staged", where=f"seed {seed}", fix="Report the seed and the format"
    )


def make(seed: int, form: Format) -> tuple[Frames, Sidecar]:
    """Simulate, draw and describe one clip."""
    graph, plan, track = stage(seed, form)
    renderer = _renderer(form.width_px, form.height_px)
    split = splits.split_of(seed)
    sidecar = Sidecar(
        clip=f"{splits.name_of(seed)}.mp4",
        seed=seed,
        split=split,  # type: ignore[arg-type]
        held_out=splits.shows_held_out(graph),
        width_px=form.width_px,
        height_px=form.height_px,
        num_frames=form.num_frames,
        fps=form.fps,
        captions=captions(graph, seed=seed, split=split),
        graph=json.loads(graph.to_json()),
        plan=plan,
        track=track,
        renderer=renderer.name,
    )
    return renderer.draw(plan, track), sidecar


def write(out: str, seed: int, form: Format) -> None:
    """Write SPLIT-NUMBER.mp4, then its sidecar: a clip with a sidecar is whole."""
    frames, sidecar = make(seed, form)
    video = io.BytesIO()
    write_mp4(video, frames, fps=form.fps)
    storage.write_bytes(storage.join(out, sidecar.clip), video.getvalue())
    storage.write_bytes(storage.join(out, f"{splits.name_of(seed)}.json"), sidecar.model_dump_json().encode())


@cache
def _renderer(width_px: int, height_px: int) -> Renderer:
    # One graphics context a process: making it costs as much as a clip.
    renderer = Renderer(width_px=width_px, height_px=height_px)
    atexit.register(renderer.close)  # while OpenGL can still be called
    return renderer
