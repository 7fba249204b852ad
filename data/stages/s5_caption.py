"""Step 5: caption what has no ground truth, from its labels. It says no more than they do."""

import json
from typing import Any

import numpy as np

from data.playground.captions import Language, say
from data.stages.s5_ask import Captioner
from data.work import Clip, Options
from kling.prompt.graph import CameraMove, Event, ObjectNode, SceneGraph

_CAMERA_JA = {
    "pan left": "カメラが左へ振られる", "pan right": "カメラが右へ振られる",
    "tilt up": "カメラが上を向く", "tilt down": "カメラが下を向く",
    "zoom in": "カメラが寄る", "zoom out": "カメラが引く",
    "roll left": "カメラが左に傾く", "roll right": "カメラが右に傾く",
}  # fmt: skip
_FAMILY: dict[Language, str] = {"en": "direct", "ja": "direct"}


def caption_clip(clip: Clip, captioner: Captioner | None = None, options: Options | None = None) -> None:
    """Captions by the model, or from the labels, for footage without ground truth.

    Raises:
        ValueError: the clip has no labels, or the model gives no caption and templates were not allowed in its place.
        ServiceError, ConfigError: see `Captioner`.
    """
    if not clip.captions and captioner is not None:
        try:
            captioner(clip)
        except ValueError:
            if options is None or options.caption_fallback != "template":
                raise
    if clip.captions:
        return
    if clip.labels is None:
        raise ValueError("no labels to make a caption of")
    labels = json.loads(clip.labels)
    graph = graph_of(labels)
    told: dict[Language, Any] = {"en": _english, "ja": _japanese}
    for language, measured in told.items():
        text = measured(labels["scene"]) if graph is None else _said(graph, language)
        clip.captions.append({"text": text, "language": language, "family": "template"})


def graph_of(labels: dict[str, Any]) -> SceneGraph | None:
    """What is sure of a clip in which things were recognised; None where none was. What has no shape has no name."""
    named = [item for item in labels["objects"] if item["shape"]]
    if not named:
        return None
    objects = tuple(
        ObjectNode(id=item["id"], shape=item["shape"], color=item["color"], size=item["size"] or None) for item in named
    )
    ids = {item.id for item in objects}
    events = tuple(
        Event(action=item["action"], agent=item["object"]) for item in labels["actions"] if item["object"] in ids
    )
    moves = [move.split() for move in labels["scene"]["camera"]]
    camera = tuple(CameraMove(kind=kind, direction=direction) for kind, direction in moves)
    scene = labels["scene"]
    return SceneGraph(
        objects=objects, events=events, camera=camera, setting=scene["setting"], lighting=scene["lighting"]
    )


def _said(graph: SceneGraph, language: Language) -> str:
    return say(graph, language, _FAMILY[language], np.random.default_rng(0), "train")


def _english(scene: dict[str, Any]) -> str:
    light = {"dark": "a dark", "medium": "a", "bright": "a bright"}[scene["light"]]
    motion = {"little": "hardly any", "some": "some", "much": "much"}[scene["motion"]]
    kind, _, direction = (scene["camera"] or [""])[0].partition(" ")
    move = f"the camera {kind}s {direction}" if kind else "the camera is still"
    return f"{light} video with {motion} motion; {move}"


def _japanese(scene: dict[str, Any]) -> str:
    light = {"dark": "暗い", "medium": "", "bright": "明るい"}[scene["light"]]
    motion = {"little": "ほとんど動きがない", "some": "動きがある", "much": "動きが大きい"}[scene["motion"]]
    move = _CAMERA_JA.get(scene["camera"][0], "カメラが動く") if scene["camera"] else "カメラは動かない"
    return f"{light}映像、{motion}、{move}"
