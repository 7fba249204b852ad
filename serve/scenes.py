"""An order's scene: which plan is carried out, and which of its controls reach the model. Runs in the ranks."""

from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kling.camera.moves import Move
from kling.errors import ConfigError, KlingError
from kling.model.controls import Controls
from kling.model.vae import VideoVAE
from kling.pipeline import Generation, Job, Pipeline
from kling.scene.direct import direct, film
from kling.scene.plan import ScenePlan, SceneTrack
from kling.shapes import Latents

from .media import Media
from .orders import Order
from .pictures import pixels


def decided(order: Order) -> tuple[ScenePlan | None, SceneTrack | None]:
    """The caller's plan, else the one read from the prompt, seen by the camera that was asked for; None: text alone.
    And how everything moves in it, where that was found on the way.

    Raises:
        KlingError: the plan cannot be simulated.
    """
    if not order.use_plan:
        return None, None
    track, aspect, moves = None, order.width_px / order.height_px, [_move(move) for move in order.moves]
    duration_s, fps, auto = order.duration_s, float(order.fps), order.auto_camera
    if order.plan is not None:
        plan = ScenePlan.model_validate(order.plan).model_copy(update={"duration_s": duration_s, "fps": fps})
    elif order.understanding or moves:
        said = order.prompt if order.understanding else "A static camera."  # a scene without things, to be filmed
        made = direct(
            said, seed=order.seed, duration_s=duration_s, fps=fps, aspect=aspect, auto_camera=order.auto_camera
        )
        plan, track = made.plan, made.track
        auto = False  # chosen already, unless the prompt names a move
    else:
        return None, None
    if moves or auto:
        plan, track = film(plan, moves or None, aspect=aspect), None
    return plan, track


def prepared(pipeline: Pipeline, order: Order, media: Media) -> Job:
    """`Pipeline.prepare` for an order, with its pictures."""
    try:
        plan, track = decided(order)
        job = pipeline.prepare(_generation(order, plan), track)
    except KlingError:
        raise
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        fix = "Take the plan of a task that works and change it step by step"
        raise ConfigError(f"the plan cannot be simulated ({error})", where="plan", fix=fix) from error
    return replace(job, controls=_with_frames(job.controls, *given_frames(pipeline.vae, order, media)))


def given_frames(vae: VideoVAE, order: Order, media: Media) -> tuple[Latents | None, Latents | None]:
    """Clean latents (1 c 1 h w) of the first and the last latent frame, where pictures of them are given."""
    first = last = None
    if order.first_frame:
        first = vae.encode(_video(media.load_picture("first")))
    if order.last_frame:  # stands for several frames, all of them this picture, after a first one
        still = _video(media.load_picture("last")).expand(-1, -1, 1 + vae.config.stride_frames, -1, -1)
        last = vae.encode(still.contiguous())[:, :, -1:]
    return first, last


def _generation(order: Order, plan: ScenePlan | None) -> Generation:
    return Generation(
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        width_px=order.width_px,
        height_px=order.height_px,
        num_frames=order.num_frames,
        fps=float(order.fps),
        seed=order.seed,
        num_steps=order.num_steps,
        guidance=order.guidance,
        use_plan=plan is not None,
        plan=plan,
        physics=order.physics,
        camera_control=order.camera,
    )


def _with_frames(controls: Controls | None, first: Latents | None, last: Latents | None) -> Controls | None:
    if first is None and last is None:
        return controls
    return replace(controls or Controls(), first_frame=first, last_frame=last)


def _move(move) -> Move:
    return Move(kind=move.kind, direction=move.direction, word=move.word, strength=move.strength)


def _video(png: bytes) -> Tensor:
    """1 3 1 h w in [-1, 1]."""
    picture = torch.from_numpy(pixels(png).copy()).float() / 127.5 - 1
    return rearrange(picture, "h w c -> 1 c 1 h w")
