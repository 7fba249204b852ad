"""Step 3: take over the ground truth of a playground clip, for exactly the frames that were kept."""

import json
import math

from pydantic import ValidationError

from data.stages.s5_label import of_truth
from data.work import Clip, Unit
from kling.presets import ClipSpec
from kling.scene.plan import CameraTrack, ObjectTrack, SceneTrack, Sidecar


def take_truth(unit: Unit, spec: ClipSpec) -> Unit:
    """Captions, plan, track and split from the sidecar; clips without one are left as they are."""
    if unit.sidecar is None:
        return unit
    try:
        sidecar = Sidecar.model_validate_json(unit.sidecar)
    except ValidationError as error:
        problem = error.errors()[0]
        for clip in unit.clips:
            clip.failed = f"truth: its sidecar cannot be read ({problem['msg']} at {problem['loc'] or 'the start'})"
        return unit
    for clip in unit.clips:
        _fill(clip, sidecar, spec)
    return unit


def _fill(clip: Clip, sidecar: Sidecar, spec: ClipSpec) -> None:
    wanted = [round((clip.start_s + i / spec.fps) * sidecar.fps) for i in range(spec.num_frames)]
    frames = [min(frame, sidecar.num_frames - 1) for frame in wanted]
    clip.split = sidecar.split
    clip.captions = [caption.model_dump() for caption in sidecar.captions]
    duration_s = (spec.num_frames - 1) / spec.fps
    clip.plan = sidecar.plan.model_copy(update={"duration_s": duration_s, "fps": float(spec.fps)}).model_dump_json()
    clip.track = _resampled(sidecar, frames, spec).model_dump_json()
    clip.labels = json.dumps(of_truth(sidecar.graph, sidecar.plan), ensure_ascii=False, sort_keys=True)


def _resampled(sidecar: Sidecar, frames: list[int], spec: ClipSpec) -> SceneTrack:
    """The track at the kept frames, its boxes relative to the picture that was cut from the middle."""
    track = sidecar.track
    aspect = (sidecar.width_px / sidecar.height_px) / (spec.width_px / spec.height_px)
    kept_x, kept_y = min(1.0, 1 / aspect), min(1.0, aspect)  # share of width and height that is left

    def box(value):
        if value is None:
            return None
        x0, y0, x1, y1 = value
        left, top = (1 - kept_x) / 2, (1 - kept_y) / 2
        return ((x0 - left) / kept_x, (y0 - top) / kept_y, (x1 - left) / kept_x, (y1 - top) / kept_y)

    def pick(values):
        return tuple(values[i] for i in frames)

    objects = tuple(
        ObjectTrack(
            id=item.id,
            box=tuple(box(item.box[i]) for i in frames),
            **{
                name: pick(getattr(item, name))
                for name in (
                    "position_m", "quaternion", "velocity_m_s", "angular_velocity_rad_s", "depth_m", "visibility",
                )
            },
        )
        for item in track.objects
    )  # fmt: skip
    fov = tuple(_cropped_fov(deg, kept_y) for deg in pick(track.camera.fov_y_deg))
    camera = CameraTrack(camera_to_world=pick(track.camera.camera_to_world), fov_y_deg=fov)
    contacts = tuple(
        contact.model_copy(update={"frame": round(contact.frame / sidecar.fps * spec.fps)})
        for contact in track.contacts
        if contact.frame <= frames[-1]
    )
    return SceneTrack(fps=float(spec.fps), objects=objects, camera=camera, contacts=contacts)


def _cropped_fov(fov_deg: float, kept: float) -> float:
    """Field of view of the middle share of a picture's height (pinhole camera)."""
    return math.degrees(2 * math.atan(kept * math.tan(math.radians(fov_deg) / 2)))
