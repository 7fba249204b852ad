"""An order: everything a worker needs to make a task's video. Written at admission, never changed; equal orders and
weights give equal bytes, whichever replica works on them and whatever runs beside."""

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OrderedMove:
    """A camera move, as `kling.camera.moves.Move` takes it."""

    kind: str
    direction: str | None = None
    word: str | None = None
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Order:
    prompt: str  # the caller's prompt with style and camera move said in words
    negative_prompt: str
    width_px: int
    height_px: int
    num_frames: int
    fps: int
    num_steps: int
    guidance: float
    seed: int
    use_plan: bool = True  # decide what happens before drawing; False: text alone
    understanding: bool = True  # from the prompt, where no plan is given
    physics: bool = True  # simulated trajectories condition the model
    camera: bool = True  # the camera's path does
    auto_camera: bool = False  # chosen from what happens
    moves: tuple[OrderedMove, ...] = ()
    plan: dict[str, Any] | None = None  # a ScenePlan as JSON: the caller's own
    # SHA-256 of pictures in the task's folder (media.py), "": none. The first one of an extension is the last frame of
    # the video it continues, of which ``before_frames`` come first in the result.
    first_frame: str = ""
    last_frame: str = ""
    before_frames: int = 0
    chunk: int = 0  # latent frames a chunk of a realtime roll-out; 0: the clip as a whole
    target_ms_per_frame: float | None = None

    @property
    def duration_s(self) -> float:
        """First frame to last."""
        return (self.num_frames - 1) / self.fps

    @property
    def total_frames(self) -> int:
        """Of the result: an extension's first frame is the last of what it continues."""
        return self.num_frames + max(0, self.before_frames - 1)

    @property
    def planned(self) -> bool:
        """Whether a ScenePlan is made or given."""
        return self.use_plan and (self.understanding or self.plan is not None or bool(self.moves))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Order":
        given = json.loads(text)
        given["moves"] = tuple(OrderedMove(**move) for move in given.get("moves", ()))
        return cls(**given)
