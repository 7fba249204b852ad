"""The pixels-only evaluator: frames and what a prompt says, in; a verdict for each thing said, out.

    evaluate(frames, graph, fps=8.0)

It never sees latents, plans or ground truth. What it can read is bounded: its score on clips that are right by
construction (its ceiling) belongs beside every score it gives (`python -m kling.bench ceiling`).
"""

from dataclasses import dataclass

import numpy as np

from kling.bench import actions, background, camera_reader, compliance, paths, relations
from kling.bench.objects import ObjectVerdict, lasting, match
from kling.bench.reader import read
from kling.bench.tracks import Track, find
from kling.errors import InputError
from kling.prompt.graph import SceneGraph
from kling.quality import motion, picture, temporal
from kling.quality.motion import flows, shrink
from kling.shapes import Frames

ATTRIBUTES = ("color", "shape", "size", "count", "relation", "action", "direction", "camera")
# What a prompt adheres by: all of these right. Actions are told apart by rough marks, and count as their direction.
ADHERENCE = ("color", "shape", "count", "relation", "direction", "camera")


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Numbers of a clip that no prompt is needed for."""

    motion_consistency: float  # 0..1, kling.quality.motion
    temporal_consistency: float  # 0..1: mean similarity of neighbouring frames, kling.quality.temporal
    temporal_trend: float  # its change a frame
    temporal_trend_p: float
    sharpness: float  # kling.quality.picture
    lawful: float | None  # share of judged moments within the tolerance of the laws; None: nothing to judge


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One clip. In ``verdicts`` each attribute has one entry for each thing said about it; none said, none judged."""

    verdicts: dict[str, tuple[bool, ...]]
    objects: tuple[ObjectVerdict, ...]
    events: tuple[actions.EventVerdict, ...]
    num_seen: int  # things that last
    camera: tuple[str, ...]  # moves seen
    measures: Measures

    @property
    def adheres(self) -> bool:
        """Everything said, as far as it can be read, is right."""
        return all(all(self.verdicts[name]) for name in ADHERENCE)

    @property
    def obeys(self) -> bool | None:
        """Whether the clip obeys the laws of motion; None: nothing to judge."""
        return None if self.measures.lawful is None else bool(self.measures.lawful >= compliance.LAWFUL_CLIP)


def evaluate(frames: Frames, graph: SceneGraph, *, fps: float) -> Evaluation:
    """Judge one clip.

    Args:
        graph: what the prompt says (`kling.prompt.understand`), not what a plan made of it.

    Raises:
        InputError: a clip of fewer than two frames, of tiny pictures, or without a frame rate.
        CheckpointError: the evaluator's own weights are missing.
    """
    if len(frames) < 2 or not fps > 0:
        raise InputError("a clip to judge has two frames or more, and a rate", where=f"{len(frames)} frames at {fps:g}")
    reading = read(frames)
    tracks = lasting(find(reading), len(frames))
    things = reading.color[:, 0] < 0.5
    behind = background.measure(reading.pictures, things)
    ways = [paths.measure(track, behind, height_px=things.shape[1], width_px=things.shape[2]) for track in tracks]
    objects = match(graph.objects, tracks)
    of = {verdict.id: verdict.track for verdict in objects}
    events = tuple(actions.judge(_seen(event, of, tracks, ways), event) for event in graph.events)
    moves = camera_reader.read_camera(behind.whole, fps)
    first = {name: tracks[index] for name, index in of.items() if index is not None}
    verdicts = {
        "color": tuple(o.color for o in objects if o.color is not None),
        "shape": tuple(o.shape for o in objects if o.shape is not None),
        "size": tuple(o.size for o in objects if o.size is not None),
        "count": (len(tracks) == len(graph.objects),) if graph.objects else (),
        "relation": relations.judge(graph.relations, first),
        "action": tuple(event.happens for event in events),
        "direction": tuple(event.direction for event in events if event.direction is not None),
        "camera": _camera(graph, moves),
    }
    return Evaluation(
        verdicts=verdicts,
        objects=objects,
        events=events,
        num_seen=len(tracks),
        camera=moves,
        measures=measures(frames, compliance.lawful(graph, of, tracks, ways, behind, fps=fps)),
    )


def _seen(event, of: dict[str, int | None], tracks: list[Track], ways: list[paths.Path]) -> actions.Seen | None:
    agent, patient = of.get(event.agent), of.get(event.patient or "")
    if agent is None:
        return None
    return actions.Seen(
        event=event,
        track=tracks[agent],
        path=ways[agent],
        patient=None if patient is None else tracks[patient],
        patient_path=None if patient is None else ways[patient],
    )


def _camera(graph: SceneGraph, seen: tuple[str, ...]) -> tuple[bool, ...]:
    """One verdict for the whole camera: the said moves, all of them and no other."""
    said = [camera_reader.known(move.kind, move.direction) for move in graph.camera]
    if not said or None in said:
        return ()
    return (tuple(sorted(filter(None, said))) == seen,)  # type: ignore[type-var]


def measures(frames: Frames, lawful: float | None) -> Measures:
    """The numbers that no prompt is needed for."""
    flow = flows(shrink(frames))
    steadiness = temporal.measure(frames, flow)
    return Measures(
        motion_consistency=motion.measure(frames, flow).consistency,
        temporal_consistency=steadiness.mean,
        temporal_trend=steadiness.trend.slope,
        temporal_trend_p=steadiness.trend.p_value,
        sharpness=float(np.mean([picture.sharpness(grey) for grey in picture.luma(frames)])),
        lawful=lawful,
    )
