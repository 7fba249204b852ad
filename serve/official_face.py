"""The Kling official format over the same tasks: `{code, message, request_id, data}`, times in milliseconds.

Text to video is made. Image to video and extension are answered with their error (400/1201): no images are taken yet.
"""

import asyncio
import math
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kling.schema import API_PREFIX, CameraControl, GenerateRequest

from . import guards
from .admission import NotAdmittedError
from .ingress import Desk, desk_of, owned
from .keys import Key
from .views import task_view

_STATUS = {"queued": "submitted", "running": "processing", "completed": "succeed"}
_ASPECTS = {"16:9": (16, 9), "9:16": (9, 16), "1:1": (1, 1)}
# Their `pan` turns in the vertical plane and their `tilt` in the horizontal one; negative `zoom` narrows the view.
_SIMPLE: dict[str, tuple[str, str, str]] = {
    "horizontal": ("dolly", "left", "right"),
    "vertical": ("crane", "down", "up"),
    "pan": ("tilt", "down", "up"),
    "tilt": ("pan", "left", "right"),
    "roll": ("roll", "left", "right"),
    "zoom": ("zoom", "in", "out"),
}
_COMPOUND = {
    "down_back": "The camera cranes down and dollies out",
    "forward_up": "The camera dollies in and cranes up",
    "right_turn_forward": "The camera pans right and dollies in",
    "left_turn_forward": "The camera pans left and dollies in",
}
Owned = Annotated[sa.RowMapping, Depends(owned)]
router = APIRouter(prefix="/v1/videos", tags=["official"])


class _Camera(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    type: Literal["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"]
    config: dict[str, Annotated[float, Field(ge=-10, le=10)]] | None = None

    @model_validator(mode="after")
    def _one_move(self) -> "_Camera":
        moves = {name: value for name, value in (self.config or {}).items() if value}
        if self.type == "simple" and len(moves) != 1:
            raise ValueError("config needs exactly one move that is not zero")
        if unknown := set(self.config or {}) - set(_SIMPLE):
            raise ValueError(f"unknown moves: {', '.join(sorted(unknown))}")
        return self


class TextToVideo(BaseModel):
    """`POST /v1/videos/text2video`. Unknown fields are ignored, as there."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model_name: Annotated[str, Field(max_length=100)] = ""
    prompt: str
    negative_prompt: str = ""
    cfg_scale: Annotated[float, Field(ge=0, le=1)] = 0.5
    mode: Literal["std", "pro"] = "std"
    camera_control: _Camera | None = None
    aspect_ratio: Literal["16:9", "9:16", "1:1"] = "16:9"
    duration: Literal["5", "10", 5, 10] = "5"
    callback_url: str | None = None
    external_task_id: str | None = None


@router.post("/image2video")
@router.post("/video-extend")
async def refuse(key: Annotated[Key, Depends(guards.writer)]) -> dict:
    raise NotAdmittedError("this model makes videos from text alone", status=400, code="unsupported")


@router.post("/text2video")
async def create(request: Request, key: Annotated[Key, Depends(guards.writer)]) -> dict:
    try:
        asked = TextToVideo.model_validate(guards.json_body(await request.body()))
        wanted = _translated(desk_of(request), asked)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    await asyncio.to_thread(guards.check_callback, wanted.callback_url)
    made = await asyncio.to_thread(desk_of(request).submit, key, wanted, None)
    return guards.official_answer(request, data=_as_task(request, made.row))


@router.get("/image2video")
@router.get("/video-extend")
async def list_none(request: Request, key: Annotated[Key, Depends(guards.reader)]) -> dict:
    return guards.official_answer(request, data=[])


@router.get("/text2video")
async def list_tasks(
    request: Request,
    key: Annotated[Key, Depends(guards.reader)],
    page: Annotated[int, Query(alias="pageNum", ge=1, le=1000)] = 1,
    size: Annotated[int, Query(alias="pageSize", ge=1, le=500)] = 30,
) -> dict:
    desk = desk_of(request)
    rows = await asyncio.to_thread(lambda: desk.store.offset_page(key.id, limit=size, offset=(page - 1) * size))
    return guards.official_answer(request, data=[_as_task(request, row) for row in rows])


@router.get("/text2video/{task_id}")
async def retrieve(row: Owned, request: Request) -> dict:
    return guards.official_answer(request, data=_as_task(request, row))


def _translated(desk: Desk, asked: TextToVideo) -> GenerateRequest:
    preset = desk.admission.preset
    across, down = _ASPECTS[asked.aspect_ratio]
    area = preset.clip.width_px * preset.clip.height_px
    unit = preset.vae.stride_px * preset.dit.patch[2]
    width = max(unit, round(math.sqrt(area * across / down) / unit) * unit)
    height = max(unit, round(math.sqrt(area * down / across) / unit) * unit)
    prompt, camera = asked.prompt, None
    if asked.camera_control is not None:
        given = asked.camera_control
        if given.type == "simple":
            name, value = next((n, v) for n, v in (given.config or {}).items() if v)
            kind, negative, positive = _SIMPLE[name]
            camera = CameraControl.model_validate({"type": kind, "direction": positive if value > 0 else negative})
        else:
            prompt = f"{prompt.rstrip(' .')}. {_COMPOUND[given.type]}."
    config = {
        "resolution": f"{width}x{height}",
        "duration": float(asked.duration),
        "quality": "high" if asked.mode == "pro" else "standard",
        "negative_prompt": asked.negative_prompt,
        "guidance": 1 + 2 * (preset.guidance - 1) * asked.cfg_scale,  # 0.5 is the preset's own
        "camera_control": camera,
    }
    return GenerateRequest.model_validate(
        {
            "prompt": prompt,
            "config": config,
            "callback_url": asked.callback_url,
            "external_task_id": asked.external_task_id,
        }
    )


def _as_task(request: Request, row: sa.RowMapping) -> dict:
    view = task_view(row)
    updated = view.finished_at or view.started_at or view.created_at
    task = {
        "task_id": view.task_id,
        "task_status": _STATUS.get(view.status, "failed"),
        "task_status_msg": view.error.message if view.error else ("cancelled" if view.status == "cancelled" else ""),
        "task_info": {"external_task_id": view.external_task_id},
        "created_at": int(view.created_at * 1000),
        "updated_at": int(updated * 1000),
    }
    if view.status == "completed":
        link = desk_of(request).signed_link(view.task_id)
        url = f"{str(request.base_url).rstrip('/')}{API_PREFIX}{link}"
        video = {"id": view.task_id, "url": url, "duration": f"{view.granted.duration_s:g}"}
        task["task_result"] = {"videos": [video]}
    return task
