"""The ScenePlan: what will happen, decided before anything is drawn. A director may edit it as JSON.

World frame, SI units: x to the viewer's right, y away from the viewer (both as seen in the first frame), z up, origin
on the floor in the middle of the scene. Quaternions are (w, x, y, z). A camera pose maps camera to world; camera axes
are x right, y down, z forward (OpenCV). Times are seconds from the first frame.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kling.prompt.graph import COLORS, FINISHES, MATERIALS, SHAPES, SIZES

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]
Matrix4 = tuple[Quat, Quat, Quat, Quat]
UNIT_QUAT: Quat = (1.0, 0.0, 0.0, 0.0)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlannedObject(_Model):
    """One object: what it is, what it is made of, where and how it starts."""

    id: str
    phrase: str  # its own noun phrase, "small red ball"; conditions the model
    shape: str  # one of kling.prompt.graph.SHAPES, or a noun simulated by its nearest shape (`proxy`)
    proxy: str  # the shape that stands for it in the simulation
    color: str | None = None
    size: str | None = None
    material: str | None = None
    finish: str | None = None
    # Radius-like half sizes along the object's own axes: ball (r, r, r); cube (a, a, a); cylinder, cone (r, r, half
    # height); capsule (r, r, half height of the whole).
    half_size_m: Vec3
    mass_kg: Annotated[float, Field(gt=0)]
    friction: Annotated[float, Field(ge=0)]  # sliding (Coulomb) coefficient
    restitution: Annotated[float, Field(ge=0, le=1)]
    position_m: Vec3
    quaternion: Quat = UNIT_QUAT
    velocity_m_s: Vec3 = (0.0, 0.0, 0.0)
    angular_velocity_rad_s: Vec3 = (0.0, 0.0, 0.0)
    fixed: bool = False  # does not move at all
    pivot_m: Vec3 | None = None  # a swinging object hangs from this point
    release_s: Annotated[float, Field(ge=0)] = 0.0  # held where it is until then; its velocities count from there

    @model_validator(mode="before")
    @classmethod
    def _called_what_it_is(cls, raw: Any) -> Any:
        """The phrase is what the model is told: an edited colour has to change it too, or nothing would change."""
        if not isinstance(raw, dict) or not isinstance(raw.get("phrase"), str):
            return raw  # other validators say what is wrong
        kinds = {"color": COLORS, "shape": SHAPES, "size": SIZES, "material": MATERIALS, "finish": FINISHES}
        wrong = {
            word: raw[name]
            for name, known in kinds.items()
            if isinstance(raw.get(name), str)
            for word in known
            if word != raw[name]
        }
        return raw | {"phrase": " ".join(wrong.get(word, word) for word in raw["phrase"].split(" "))}


class PlannedEvent(_Model):
    """A stated event; the initial conditions of its objects make it happen."""

    action: str
    agent: str
    patient: str | None = None
    direction: str | None = None
    speed: str | None = None
    start_s: float = 0.0
    push_m_s: Vec3 | None = None  # velocity that the agent is given at start_s, for what its release cannot cause
    push_rad_s: Vec3 | None = None


class CameraKey(_Model):
    """Where the camera is at one moment. Between keys the path is a C1 Bezier curve (kling.camera)."""

    time_s: float
    position_m: Vec3
    quaternion: Quat  # camera to world
    fov_y_deg: Annotated[float, Field(gt=1, lt=170)]


class PlannedCamera(_Model):
    """The camera's moves by name, and the keys that carry them out."""

    moves: tuple[str, ...] = ("static",)  # "orbit left", "zoom in": names of kling.prompt.graph.CAMERA_MOVES
    keys: Annotated[tuple[CameraKey, ...], Field(min_length=1)]
    easing: Literal["linear", "ease"] = "linear"


class Environment(_Model):
    setting: str = "studio"
    lighting: str = "studio"
    gravity_m_s2: float = 9.81


class ScenePlan(_Model):
    """Layout, properties, motion and camera: all that the simulation needs."""

    objects: tuple[PlannedObject, ...] = ()
    events: tuple[PlannedEvent, ...] = ()
    camera: PlannedCamera
    environment: Environment = Environment()
    style: str | None = None
    duration_s: Annotated[float, Field(gt=0, le=60)]
    fps: Annotated[float, Field(gt=0, le=120)]
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    doubts: tuple[str, ...] = ()  # contradictions and guesses, each named
    not_understood: tuple[str, ...] = ()  # words that no level could use; they still reach the model as text

    @property
    def num_frames(self) -> int:
        """Frames at i / fps, both ends included: 2 s at 8 fps is 17 frames."""
        return round(self.duration_s * self.fps) + 1


class Contact(_Model):
    """Two bodies meet. ``b`` is an object id or "floor"."""

    frame: int
    a: str
    b: str
    impulse_n_s: float
    point_m: Vec3


class ObjectTrack(_Model):
    """One object over all frames; lists have one entry a frame."""

    id: str
    position_m: tuple[Vec3, ...]
    quaternion: tuple[Quat, ...]
    velocity_m_s: tuple[Vec3, ...]
    angular_velocity_rad_s: tuple[Vec3, ...]
    # Image-plane box (x0, y0, x1, y1) as fractions of width and height, not clipped; None when behind the camera.
    box: tuple[Quat | None, ...]
    depth_m: tuple[float, ...]  # along the camera's viewing axis
    visibility: tuple[float, ...]  # visible share of the object's own pixels, 0..1 (occlusion and frame borders)


class CameraTrack(_Model):
    """One entry a frame."""

    camera_to_world: tuple[Matrix4, ...]
    fov_y_deg: tuple[float, ...]


class SceneTrack(_Model):
    """What the plan leads to: simulated objects, the camera's path, contacts."""

    fps: float
    objects: tuple[ObjectTrack, ...]
    camera: CameraTrack
    contacts: tuple[Contact, ...] = ()


class Caption(_Model):
    text: str
    language: Literal["en", "ja"]
    family: str  # paraphrase family of the grammar, "template", or "user"


class Sidecar(_Model):
    """The JSON beside a playground clip (clip.mp4 + clip.json)."""

    version: Literal[1] = 1
    clip: str
    seed: int
    split: Literal["train", "val", "bench"]
    held_out: bool  # shows a combination that the training split never shows
    width_px: int
    height_px: int
    num_frames: int
    fps: float
    captions: tuple[Caption, ...]
    graph: dict  # kling.prompt.graph.SceneGraph as JSON
    plan: ScenePlan
    track: SceneTrack
    renderer: str
