"""The Kling official format over the same tasks: `{code, message, request_id, data}`, times in milliseconds.

Text to video, image to video (the picture as base64; addresses are not fetched) and extension of a finished video.
"""

import asyncio
import json
import math
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kling.camera.kling_format import AXES, from_kling
from kling.schema import CameraControl, GenerateRequest, Name

from . import guards, pictures
from .ingress import Desk, desk_of, owned
from .keys import Key
from .views import official_view

_ASPECTS = {"16:9": (16, 9), "9:16": (9, 16), "1:1": (1, 1)}
_EXTENSION_S = 5.0
_NO_PROMPT = "the scene goes on"  # where the format lets the prompt be left out
_COMPOUND = {
    "down_back": "The camera cranes down and dollies out",
    "forward_up": "The camera dollies in and cranes up",
    "right_turn_forward": "The camera pans right and dollies in",
    "left_turn_forward": "The camera pans left and dollies in",
}
Owned = Annotated[sa.RowMapping, Depends(owned)]


class _Refusal(BaseModel):
    """Every answer that is no success, in that format."""

    code: int
    message: str
    request_id: str


_REFUSALS: dict[int | str, dict] = {status: {"model": _Refusal} for status in (400, 401, 403, 404, 429, 503)}
router = APIRouter(prefix="/v1/videos", tags=["official"], responses=_REFUSALS)


class _Camera(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    type: Literal["simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward"]
    config: dict[str, Annotated[float, Field(ge=-10, le=10)]] | None = None

    @model_validator(mode="after")
    def _one_move(self) -> "_Camera":
        moves = {name: value for name, value in (self.config or {}).items() if value}
        if self.type == "simple" and len(moves) != 1:
            raise ValueError("config needs exactly one move that is not zero")
        if unknown := set(self.config or {}) - set(AXES):
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


class ImageToVideo(TextToVideo):
    """`POST /v1/videos/image2video`: the video has the picture's shape, and may end with another picture."""

    prompt: str = ""
    image: str | None = None
    image_tail: str | None = None

    @model_validator(mode="after")
    def _any_picture(self) -> "ImageToVideo":
        if not self.image and not self.image_tail:
            raise ValueError("image or image_tail is needed")
        return self


class Extension(BaseModel):
    """`POST /v1/videos/video-extend`: 5 s more of a finished video."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    video_id: Name
    prompt: str = ""
    negative_prompt: str = ""
    cfg_scale: Annotated[float, Field(ge=0, le=1)] = 0.5
    callback_url: str | None = None
    external_task_id: str | None = None


def _serve(path: str, kind: str, model: type[BaseModel]) -> None:
    """Create, list and get for one of the format's paths."""

    body = {"required": True, "content": {"application/json": {"schema": _schema(model)}}}

    @router.post(path, openapi_extra={"requestBody": body})
    async def create(request: Request, response: Response, key: Annotated[Key, Depends(guards.writer)]) -> dict:
        desk = desk_of(request)
        try:
            asked = model.model_validate(guards.json_body(await request.body()))
            wanted = await asyncio.to_thread(_translated, desk, key, asked)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        made = await asyncio.to_thread(desk.submit, key, wanted, None, callback_base=_base(request))
        response.headers.update(made.headers)
        return guards.official_answer(request, data=_as_task(request, made.row))

    @router.get(path)
    async def list_tasks(
        request: Request,
        key: Annotated[Key, Depends(guards.reader)],
        page: Annotated[int, Query(alias="pageNum", ge=1, le=1000)] = 1,
        size: Annotated[int, Query(alias="pageSize", ge=1, le=500)] = 30,
    ) -> dict:
        store = desk_of(request).store
        rows = await asyncio.to_thread(lambda: store.offset_page(key.id, kind, limit=size, offset=(page - 1) * size))
        return guards.official_answer(request, data=[_as_task(request, row) for row in rows])

    @router.get(path + "/{task_id}")
    async def retrieve(row: Owned, request: Request) -> dict:
        return guards.official_answer(request, data=_as_task(request, row))


def _schema(model: type[BaseModel]) -> dict:
    """A model's JSON Schema without references, which OpenAPI would look for in its own root."""
    whole = model.model_json_schema()
    named = whole.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(item) for item in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).rpartition("/")[2]
        return inlined(named[name]) if name in named else {key: inlined(value) for key, value in part.items()}

    return inlined(whole)


# Named one by one: a path with a parameter would take the OpenAI format's own paths.
_serve("/text2video", "text", TextToVideo)
_serve("/image2video", "image", ImageToVideo)
_serve("/video-extend", "extend", Extension)


def _translated(desk: Desk, key: Key, asked: BaseModel) -> GenerateRequest:
    """Raises ValidationError, and NotAdmittedError for a picture that cannot be read."""
    if isinstance(asked, Extension):
        return _extension(desk, key, asked)
    assert isinstance(asked, TextToVideo)
    given: dict = {}
    across, down = _ASPECTS[asked.aspect_ratio]
    if isinstance(asked, ImageToVideo):
        given = {"first_frame": asked.image or None, "last_frame": asked.image_tail or None}
        field, text = ("image", asked.image) if asked.image else ("image_tail", asked.image_tail or "")
        across, down = pictures.opened(text, field).size
        asked = asked.model_copy(update={"prompt": asked.prompt or _NO_PROMPT})
    preset = desk.admission.preset
    area = preset.clip.width_px * preset.clip.height_px
    unit = preset.vae.stride_px * preset.dit.patch[2]
    width = max(unit, round(math.sqrt(area * across / down) / unit) * unit)
    height = max(unit, round(math.sqrt(area * down / across) / unit) * unit)
    prompt, camera = asked.prompt, None
    if asked.camera_control is not None:
        control = asked.camera_control
        if control.type == "simple":
            moves = from_kling(control.model_dump())
            assert moves is not None
            [move] = moves
            camera = CameraControl.model_validate(
                {"type": move.kind, "direction": move.direction, "strength": move.strength}
            )
        else:
            prompt = f"{prompt.rstrip(' .')}. {_COMPOUND[control.type]}."
    config = {
        "resolution": f"{width}x{height}",
        "duration": float(asked.duration),
        "quality": "high" if asked.mode == "pro" else "standard",
        "negative_prompt": asked.negative_prompt,
        "guidance": _guidance(desk, asked.cfg_scale),
        "camera_control": camera,
    }
    return GenerateRequest.model_validate(
        {
            "prompt": prompt,
            "config": config,
            "callback_url": asked.callback_url,
            "external_task_id": asked.external_task_id,
            **given,
        }
    )


def _extension(desk: Desk, key: Key, asked: Extension) -> GenerateRequest:
    """Without a prompt it goes on as it was asked for."""
    prompt = asked.prompt
    if not prompt and (row := desk.store.get(asked.video_id, key.id)) is not None:
        prompt = json.loads(row["request"])["prompt"]
    config = {
        "duration": _EXTENSION_S,
        "negative_prompt": asked.negative_prompt,
        "guidance": _guidance(desk, asked.cfg_scale),
    }
    return GenerateRequest.model_validate(
        {
            "prompt": prompt or _NO_PROMPT,
            "config": config,
            "extend": asked.video_id,
            "callback_url": asked.callback_url,
            "external_task_id": asked.external_task_id,
        }
    )


def _guidance(desk: Desk, cfg_scale: float) -> float:
    return 1 + 2 * (desk.admission.preset.guidance - 1) * cfg_scale  # 0.5 is the preset's own


def _base(request: Request) -> str:
    """Where the caller reached the service."""
    return str(request.base_url).rstrip("/")


def _as_task(request: Request, row: sa.RowMapping) -> dict:
    return official_view(row, _base(request), desk_of(request).secret)
