"""Step 5: label and caption what has no ground truth, from what was measured. It says no more than that."""

import json

from data.stages.s5_ask import Captioner
from data.work import Clip, Options
from kling.quality import camera

_CAMERA_JA = {
    "pan left": "カメラが左へ振られる", "pan right": "カメラが右へ振られる",
    "tilt up": "カメラが上を向く", "tilt down": "カメラが下を向く",
    "zoom in": "カメラが寄る", "zoom out": "カメラが引く",
    "roll left": "カメラが左に傾く", "roll right": "カメラが右に傾く",
}  # fmt: skip


def caption_clip(clip: Clip, captioner: Captioner | None = None, options: Options | None = None) -> None:
    """Measured labels, and captions by the model or from a template, for footage without ground truth.

    Objects and actions are not among the labels: nothing here recognises them.

    Raises:
        ValueError: the model gives no caption, and templates were not allowed in its place.
        ServiceError, ConfigError: see `Captioner`.
    """
    move = camera.name_of(*(clip.scores[f"camera_{name}"] for name in ("pan", "tilt", "zoom", "roll")))
    if clip.labels is None:
        light = _grade(clip.scores["brightness"], 0.25, 0.65, ("dark", "medium", "bright"))
        motion = _grade(clip.scores["speed"], 0.002, 0.02, ("little", "some", "much"))
        labels = {"scene": {"light": light, "motion": motion, "camera": move}, "objects": [], "actions": []}
        clip.labels = json.dumps({**labels, "origin": "measured"}, ensure_ascii=False, sort_keys=True)
    if not clip.captions and captioner is not None:
        try:
            captioner(clip)
        except ValueError:
            if options is None or options.caption_fallback != "template":
                raise
    if not clip.captions:
        scene = json.loads(clip.labels)["scene"]
        clip.captions = [
            {"text": _english(scene), "language": "en", "family": "template"},
            {"text": _japanese(scene), "language": "ja", "family": "template"},
        ]


def _grade(value: float, low: float, high: float, words: tuple[str, str, str]) -> str:
    return words[0] if value < low else words[2] if value > high else words[1]


def _english(scene: dict[str, str]) -> str:
    light = {"dark": "a dark", "medium": "a", "bright": "a bright"}[scene["light"]]
    motion = {"little": "hardly any", "some": "some", "much": "much"}[scene["motion"]]
    kind, _, direction = scene["camera"].partition(" ")
    move = "the camera is still" if kind == "static" else f"the camera {kind}s {direction}"
    return f"{light} video with {motion} motion; {move}"


def _japanese(scene: dict[str, str]) -> str:
    light = {"dark": "暗い", "medium": "", "bright": "明るい"}[scene["light"]]
    motion = {"little": "ほとんど動きがない", "some": "動きがある", "much": "動きが大きい"}[scene["motion"]]
    return f"{light}映像、{motion}、{_CAMERA_JA.get(scene['camera'], 'カメラは動かない')}"
