"""The OpenAI video format over the same tasks, as the unmodified `openai` package speaks it.

Creation is multipart/form-data (the package's way) or JSON. Fields that are not of that format but of ours (seed,
steps, negative_prompt, `camera_control[type]`, ...) are taken too. A failed task answers 200 with status "failed".
"""

import asyncio
import re
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from kling.schema import FINAL_STATES, GenerateRequest, VideoConfig

from . import guards, pictures
from .admission import NotAdmittedError
from .ingress import IDEMPOTENCY_KEY, Desk, desk_of, owned, video_response
from .keys import Key
from .media import Media
from .orders import Order
from .views import task_view

_STATUS = {"queued": "queued", "running": "in_progress", "completed": "completed"}
_OURS = frozenset(VideoConfig.model_fields) - {"resolution", "duration"}
_TOP = ("plan", "last_frame", "extend")
_BRACKETS = re.compile(r"^(\w+)\[(\w+)\]$")
Owned = Annotated[sa.RowMapping, Depends(owned)]
router = APIRouter(prefix="/v1/videos", tags=["openai"])


@router.post("")
async def create(
    request: Request,
    key: Annotated[Key, Depends(guards.writer)],
    idempotency_key: Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY)] = None,
) -> Response:
    """Accept a task from a form or JSON body."""
    wanted = _translated(await _fields(request))
    made = await asyncio.to_thread(desk_of(request).submit, key, wanted, idempotency_key)
    # The package retries a POST on its own, without an idempotency key: a task exists, so it must not.
    return JSONResponse(await _video(desk_of(request), made.row), headers={"x-should-retry": "false"})


@router.get("")
async def list_videos(
    request: Request,
    key: Annotated[Key, Depends(guards.reader)],
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict:
    desk = desk_of(request)
    rows, more = await asyncio.to_thread(
        lambda: desk.store.page(key.id, limit=limit, after=after, ascending=order == "asc")
    )
    data = [_as_video(desk, row) for row in rows]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, "has_more": more and bool(data), **ends}


@router.get("/{task_id}")
async def retrieve(row: Owned, request: Request) -> Response:
    desk = desk_of(request)
    view = await asyncio.to_thread(desk.view, row)
    pause_ms = int(min(5.0, max(0.25, (view.eta_s or 0.0) / 10)) * 1000)
    return JSONResponse(await _video(desk, row), headers={"openai-poll-after-ms": str(pause_ms)})


@router.delete("/{task_id}")
async def delete(row: Owned, request: Request, key: Annotated[Key, Depends(guards.writer)]) -> dict:
    """Forget a task; one that has not ended is cancelled first."""
    desk = desk_of(request)
    if row["state"] not in FINAL_STATES:
        await asyncio.to_thread(desk.store.cancel, row["id"])
        for _ in range(100):
            row = await asyncio.to_thread(desk.store.get, row["id"]) or row
            if row["state"] in FINAL_STATES:
                break
            await asyncio.sleep(0.1)
    await asyncio.to_thread(desk.remove, row)
    return {"id": row["id"], "deleted": True, "object": "video.deleted"}


@router.get("/{task_id}/content", response_class=Response)
async def content(
    row: Owned, request: Request, variant: Literal["video", "thumbnail", "spritesheet"] = "video"
) -> Response:
    return await video_response(desk_of(request), row, variant)


@router.post("/{task_id}/remix")
async def remix(row: Owned, request: Request, key: Annotated[Key, Depends(guards.writer)]) -> Response:
    """The same settings and seed with another prompt."""
    fields = await _fields(request)
    before = GenerateRequest.model_validate_json(row["request"])
    seed = Order.from_json(row["order"]).seed
    config = before.config.model_copy(update={"seed": seed})
    again = before.model_dump(include={"extend"}) | {"prompt": fields.get("prompt"), "config": config.model_dump()}
    media, order = Media(desk_of(request).settings.state, row["id"]), Order.from_json(row["order"])
    if order.first_frame and before.extend is None:
        again["first_frame"] = pictures.as_text(await asyncio.to_thread(media.load_picture, "first"))
    if order.last_frame:
        again["last_frame"] = pictures.as_text(await asyncio.to_thread(media.load_picture, "last"))
    wanted = _validated(again)
    made = await asyncio.to_thread(desk_of(request).submit, key, wanted, None, row["id"])
    return JSONResponse(await _video(desk_of(request), made.row), headers={"x-should-retry": "false"})


async def _video(desk: Desk, row: sa.RowMapping) -> dict:
    return await asyncio.to_thread(_as_video, desk, row)


def _as_video(desk: Desk, row: sa.RowMapping) -> dict:
    view = task_view(row)
    error = None
    if view.status in ("failed", "cancelled"):
        given = view.error
        error = {"code": given.code if given else "cancelled", "message": given.message if given else "cancelled"}
    return {
        "id": view.task_id,
        "object": "video",
        "status": _STATUS.get(view.status, "failed"),
        "progress": int(view.progress.fraction * 100),
        "created_at": int(view.created_at),
        "completed_at": int(view.finished_at) if view.finished_at and view.status == "completed" else None,
        "expires_at": None,
        "model": f"kling-{desk.settings.preset}",
        "prompt": view.prompt,
        "seconds": f"{view.granted.duration_s:g}",
        "size": f"{view.granted.width_px}x{view.granted.height_px}",
        "remixed_from_video_id": row["parent"],
        "error": error,
    }


async def _fields(request: Request) -> dict:
    """The body's fields, from a form or JSON. Raises NotAdmittedError (400) for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
            async with request.form(max_files=1, max_fields=100) as form:
                texts = {name: value for name, value in form.items() if isinstance(value, str)}
                for name, value in form.items():
                    if isinstance(value, UploadFile):  # checked as a picture when the task is admitted
                        texts[name] = pictures.as_text(await value.read())
                return _unbracketed(texts)
    except (ValueError, HTTPException) as error:
        raise NotAdmittedError("the form cannot be read", status=400, code="invalid_body") from error
    fields = guards.json_body(await request.body())
    if not isinstance(fields, dict):
        raise NotAdmittedError("the body is not a JSON object", status=400, code="invalid_body")
    return fields


def _unbracketed(form: dict[str, str]) -> dict:
    """``camera_control[type]=orbit`` becomes ``{"camera_control": {"type": "orbit"}}``."""
    fields: dict = {}
    for name, value in form.items():
        match = _BRACKETS.match(name)
        if match is None:
            fields[name] = value
        elif isinstance(inner := fields.setdefault(match[1], {}), dict):
            inner[match[2]] = value
    return fields


def _translated(fields: dict) -> GenerateRequest:
    config = {name: fields[name] for name in _OURS if fields.get(name) is not None}
    if fields.get("size") is not None:
        config["resolution"] = fields["size"]
    if fields.get("seconds") is not None:
        config["duration"] = fields["seconds"]
    reference = fields.get("input_reference")
    if isinstance(reference, dict):  # the JSON form
        reference = reference.get("image_url")
    ours = {name: fields[name] for name in _TOP if fields.get(name) is not None}
    return _validated({"prompt": fields.get("prompt"), "config": config, "first_frame": reference, **ours})


def _validated(given: dict) -> GenerateRequest:
    """Raises RequestValidationError, which names the field."""
    try:
        return GenerateRequest.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
