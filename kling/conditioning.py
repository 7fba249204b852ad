"""From what the scene decided to what the transformer takes: numpy paintings to batched tensors, phrases to vectors.

Training and generation both go through here, so that the model meets in use what it met in training.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kling.model.config import DiTConfig
from kling.model.controls import Controls
from kling.model.text import TextEncoder
from kling.scene.control import ControlArrays, control_arrays
from kling.scene.plan import ScenePlan, SceneTrack


def painted(
    plan: ScenePlan, track: SceneTrack, config: DiTConfig, *, grid: tuple[int, int, int], aspect: float | None = None
) -> ControlArrays:
    """`control_arrays` with what this transformer asks for."""
    return control_arrays(
        plan,
        track,
        grid=grid,
        aspect=aspect,
        num_slots=config.object_slots,
        outline_cells=config.outline_cells,
        with_floor=config.floor_waves > 0,
    )


class PhraseVectors:
    """Mean text state of each noun phrase, computed once a phrase. "" (an empty slot) is the zero vector."""

    def __init__(self, text: TextEncoder):
        self._text = text
        self._known: dict[str, Tensor] = {"": torch.zeros(text.config.width)}

    def __call__(self, phrase: str) -> Float[Tensor, " d"]:
        if phrase not in self._known:
            self._known[phrase] = self._text.encode([phrase]).states[0].mean(dim=0).cpu()
        return self._known[phrase]


def to_controls(arrays: Sequence[ControlArrays], vectors: PhraseVectors) -> Controls | None:
    """Stack clips of one bucket into a batch; None when nothing is controlled.

    A clip without a control that others of the batch have gets zeros, which the model takes as absent. ``fps`` is used
    only where every clip states it.
    """

    def stack(name: str) -> Tensor | None:
        found = [getattr(a, name) for a in arrays]
        like = next((x for x in found if x is not None), None)
        if like is None:
            return None
        return torch.stack([torch.zeros(like.shape) if x is None else torch.from_numpy(x) for x in found])

    objects = stack("objects")
    phrases = None
    if objects is not None:
        slots = objects.shape[1]
        rows = [[vectors(p) for p in (*a.phrases, *[""] * slots)[:slots]] for a in arrays]
        phrases = torch.stack([torch.stack(row) for row in rows])
    rates = [a.fps for a in arrays]
    controls = Controls(
        camera=stack("camera"),
        flow=stack("flow"),
        floor=stack("floor"),
        objects=objects,
        phrases=phrases,
        fps=None if None in rates else torch.tensor(rates, dtype=torch.float32),
    )
    absent = (controls.camera, controls.flow, controls.objects, controls.fps)
    return None if all(x is None for x in absent) else controls
