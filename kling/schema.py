"""The wire contract, shared by the service and its client: light (pydantic only), strict, with units in the names.

Every request model refuses unknown fields and non-finite numbers; every answer model ignores fields it does not know,
so that an older client can talk to a newer service.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kling.scene.plan import ScenePlan

API_PREFIX = "/kling/v1.6"
MAX_PROMPT_CHARS = 2500
MAX_BODY_BYTES = 8 * 2**20
MAX_SEED = 2**32 - 1
MAX_PLANNED = 64  # objects, events, camera keys of a plan

# States never move back: queued > running > completed | failed | cancelled.
State = Literal["queued", "running", "completed", "failed", "cancelled"]
FINAL_STATES: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


def _readable(text: str) -> str:
    """Tabs and line ends are fine; control characters and lone surrogates (no UTF-8) are not text."""
    for char in text:
        code = ord(char)
        if (code < 32 and char not in "\t\n\r") or code == 127 or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"contains the control character U+{code:04X}")
    return text


_READABLE = AfterValidator(_readable)
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_CHARS), _READABLE]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
# A PNG, JPEG or WebP file in base64, with or without "data:image/png;base64," before it. URLs are not fetched.
Picture = Annotated[str, StringConstraints(min_length=16, max_length=MAX_BODY_BYTES)]


def _bounded(plan: ScenePlan) -> ScenePlan:
    for name, many in (("objects", plan.objects), ("events", plan.events), ("camera.keys", plan.camera.keys)):
        if len(many) > MAX_PLANNED:
            raise ValueError(f"{name}: at most {MAX_PLANNED}, got {len(many)}")
    return plan


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")


# As `kling.camera.moves.SIGNS` (a test compares them): that room needs numpy, and a client does not.
_DIRECTIONS: dict[str, tuple[str, ...]] = {
    "static": ("",),
    "dolly": ("in", "out", "left", "right"),
    "crane": ("up", "down"),
    "pan": ("left", "right"),
    "tilt": ("up", "down"),
    "roll": ("left", "right"),
    "zoom": ("in", "out"),
    "orbit": ("left", "right"),
}


class CameraControl(_Request):
    """One camera move for the whole clip, in the viewer's words ("orbit left")."""

    type: Literal["static", "dolly", "pan", "tilt", "zoom", "orbit", "crane", "roll"]
    direction: Literal["in", "out", "left", "right", "up", "down"] | None = None
    speed: Literal["slow", "fast"] | None = None
    strength: Annotated[float, Field(gt=0, le=4)] = Field(default=1.0, description="times the usual speed")

    @model_validator(mode="after")
    def _possible(self) -> "CameraControl":
        known = _DIRECTIONS.get(self.type, ())
        if (self.direction or "") not in known:
            options = ", ".join(name or "none" for name in known)
            raise ValueError(f"{self.type} goes {options}; not {self.direction or 'without a direction'}")
        return self


class VideoConfig(_Request):
    """How to make the video. What is left out is the preset's own choice; the task tells which values were used."""

    resolution: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")] | None = Field(
        default=None, description="WIDTHxHEIGHT in pixels", examples=["1024x576"]
    )
    duration: Annotated[float, Field(gt=0, le=60)] | None = Field(default=None, description="seconds")
    fps: Annotated[int, Field(ge=1, le=60)] | None = Field(default=None, description="frames a second")
    quality: Literal["draft", "standard", "high"] = Field(
        default="standard", description="sampling steps: x0.5, x1, x2"
    )
    style: Annotated[str, StringConstraints(strip_whitespace=True, max_length=120), _READABLE] | None = None
    camera_control: CameraControl | bool | None = Field(
        default=None,
        description="a move; true: chosen from what happens; false: the camera does not condition the model; "
        "left out: what the prompt says",
    )
    physics: bool = Field(
        default=True, description="simulated trajectories condition the model; false: they do not, the text alone says"
    )
    understanding: bool = Field(
        default=True, description="read the prompt into a scene; false: only a given plan or camera move is carried out"
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="drawn at random when left out"
    )
    negative_prompt: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=MAX_PROMPT_CHARS), _READABLE
    ] = ""
    guidance: Annotated[float, Field(ge=0, le=20)] | None = None
    steps: Annotated[int, Field(ge=1, le=200)] | None = Field(
        default=None, description="sampling steps; overrides quality"
    )
    use_plan: bool = Field(
        default=True, description="decide what happens before drawing; false: text alone, all three switches off"
    )
    realtime: bool = Field(
        default=False, description="make the video chunk by chunk: frames leave while later ones are made"
    )
    target_ms_per_frame: Annotated[float, Field(ge=1, le=60_000)] | None = Field(
        default=None,
        description="with realtime: steps and size are adapted to hold this pace, so that the same seed need not give "
        "the same video; the task's pace tells what was used",
    )
    priority: Annotated[int, Field(ge=0, le=9)] = Field(default=5, description="9 goes first")
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        default=None,
        description="seconds from now after which the video is of no use; the task then fails instead of running",
    )
    allow_downgrade: bool = Field(default=True, description="false: refuse (409) rather than make something smaller")


class GenerateRequest(_Request):
    """`POST /kling/v1.6/generate`."""

    prompt: Prompt
    config: VideoConfig = VideoConfig()
    plan: Annotated[ScenePlan, AfterValidator(_bounded)] | None = Field(
        default=None, description="what happens, instead of what the prompt says; see GET .../plan/{task_id}"
    )
    first_frame: Picture | None = Field(default=None, description="the video starts with this picture")
    last_frame: Picture | None = Field(default=None, description="and ends with this one")
    extend: Name | None = Field(
        default=None, description="continue this completed task's video (its size and rate): the result holds both"
    )
    callback_url: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        default=None, description="told (signed, Standard Webhooks) when the task ends"
    )
    external_task_id: Name | None = Field(
        default=None, description="your own name for the task, unique among your tasks"
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> "GenerateRequest":
        if self.extend is not None and self.first_frame is not None:
            raise ValueError("extend starts with the last frame of that video: leave out first_frame")
        if self.config.target_ms_per_frame is not None and not self.config.realtime:
            raise ValueError("config.target_ms_per_frame needs config.realtime")
        if self.config.realtime and self.last_frame is not None:
            raise ValueError("config.realtime makes each chunk from those before it: it cannot aim at a last_frame")
        return self


class Granted(_Answer):
    """What is really made, after defaults and adjustments. The same values and seed give the same bytes."""

    width_px: int
    height_px: int
    num_frames: int
    fps: int
    num_steps: int
    guidance: float
    seed: int

    @property
    def duration_s(self) -> float:
        """First frame to last: 17 frames at 8 a second last 2 s."""
        return (self.num_frames - 1) / self.fps


class Adjustment(_Answer):
    """One thing that was changed against the request, and why."""

    field: str
    asked: str
    granted: str
    reason: str


class Progress(_Answer):
    """How far a task is."""

    stage: str = ""  # text | denoise | decode
    step: int = 0
    num_steps: int = 0
    fraction: float = 0.0  # 0..1, by predicted time


class Pace(_Answer):
    """How one chunk of a realtime task was made."""

    num_frames: int
    num_steps: int
    width_px: int
    height_px: int
    ms_per_frame: float


class VideoResult(_Answer):
    """What was made, and where it is."""

    video_url: str
    thumbnail_url: str
    spritesheet_url: str
    num_bytes: int
    sha256: str
    duration_s: float
    num_frames: int  # of the file: with the video that was extended
    pace: tuple[Pace, ...] = ()  # realtime tasks: chunk by chunk


class TaskProblem(_Answer):
    code: str
    message: str


class Task(_Answer):
    """A generation as its owner sees it. Times are seconds since 1970 (UTC)."""

    task_id: str
    status: State
    prompt: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0  # how often it was started; more than 1: a worker was lost and it went on elsewhere
    priority: int = 5
    queue_position: int | None = None  # 1: next; None: not waiting
    eta_s: float | None = None  # predicted seconds until the video is there; None: not known or ended
    progress: Progress = Progress()
    granted: Granted
    adjustments: tuple[Adjustment, ...] = ()
    result: VideoResult | None = None
    error: TaskProblem | None = None
    external_task_id: str | None = None
    status_url: str = ""
    stream_url: str = ""
    events_url: str = ""
    plan_url: str | None = None  # of the ScenePlan it is made from; None: text alone

    @property
    def done(self) -> bool:
        return self.status in FINAL_STATES


class TaskList(_Answer):
    """One page of tasks."""

    tasks: tuple[Task, ...]
    next_after: str | None = None  # pass as ?after= for the next page; None: this was the last


class ProblemBody(_Answer):
    """Every error answers ``{"error": {...}}``; ``field`` names what to correct where one field is at fault."""

    code: str
    message: str
    field: str | None = None
    details: tuple[dict[str, Any], ...] = ()


class Problem(_Answer):
    error: ProblemBody


class UsageWindow(_Answer):
    """A key's use of one window of time."""

    window: Literal["hour", "day", "month"]
    used_s: float  # seconds of video granted in this window
    limit_s: float | None  # None: no limit
    share: float  # used / limit; 0 without a limit


class Recommendation(_Answer):
    topic: Literal["quota", "peak_hours", "resolution", "duration"]
    advice: str


class Recommendations(_Answer):
    recommendations: tuple[Recommendation, ...]  # empty: nothing to say yet


class Usage(_Answer):
    windows: tuple[UsageWindow, ...]
    recommendations: tuple[str, ...] = ()


class Health(_Answer):
    status: str
    detail: str = ""
