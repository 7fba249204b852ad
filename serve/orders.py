"""An order: everything a worker needs to make a task's video. Written at admission, never changed; equal orders and
weights give equal bytes, whichever replica works on them and whatever runs beside."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kling.pipeline import Generation


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

    @property
    def duration_s(self) -> float:
        """First frame to last."""
        return (self.num_frames - 1) / self.fps

    def generation(self) -> "Generation":
        from kling.pipeline import Generation  # loads the networks' libraries, which only ranks need

        return Generation(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            width_px=self.width_px,
            height_px=self.height_px,
            num_frames=self.num_frames,
            fps=float(self.fps),
            seed=self.seed,
            num_steps=self.num_steps,
            guidance=self.guidance,
            use_plan=self.use_plan,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Order":
        return cls(**json.loads(text))
