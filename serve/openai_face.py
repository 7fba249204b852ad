"""The OpenAI video format over the same tasks, as the unmodified `openai` package speaks it.

Creation is multipart/form-data (the package's way) or JSON. Fields that are not of that format but of ours (seed,
steps, negative_prompt, `camera_control[type]`, ...) are taken too. A failed task answers 200 with status "failed".
"""

import asyncio
import base64
import binascii
import hashlib
import re
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from kling.schema import FINAL_STATES, GenerateRequest, VideoConfig

from . import answers, guards, pictures
from .admission import NotAdmittedError
from .ingress import IDEMPOTENCY_KEY, Desk, Submitted, desk_of, owned
from .keys import Key
from .media import Media
from .orders import Order
from .views import task_view

_STATUS = {"queued": "queued", "running": "in_progress", "completed": "completed"}
_OURS = frozenset(VideoConfig.model_fields)
_TOP = ("plan", "first_frame", "last_frame", "extend", "callback_url", "external_task_id")
_FILE = "data:video/mp4;base64,"
_BRACKETS = re.compile(r"\w+(\[\w*\]){1,8}")  # deeper is no field of ours
Owned = Annotated[sa.RowMapping, Depends(owned)]


class _Fault(BaseModel):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class _Faulty(BaseModel):
    """Every answer that is no success, in that format."""

    error: _Fault


_FAULTS: dict[int | str, dict] = {
    status: {"model": _Faulty} for status in (400, 401, 403, 404, 408, 409, 413, 429, 431, 503)
}
router = APIRouter(prefix="/v1/videos", tags=["openai"], responses=_FAULTS)


def _body(*required: str, **fields: dict) -> dict:
    """What OpenAPI says of a body that is read as a form or as JSON."""
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}, **fields}, "required": list(required)}
    return {"requestBody": {"required": True, "content": {
        kind: {"schema": schema} for kind in ("multipart/form-data", "application/json")
    }}}  # fmt: skip


_CREATION = _body(
    "prompt",
    model={"type": "string"},
    size={"type": "string", "description": "WIDTHxHEIGHT in pixels"},
    seconds={"type": "string"},
    input_reference={"type": "string", "format": "binary", "description": "the first frame"},
    **{name: {"description": f"as `config.{name}` of POST /kling/v1.6/generate"} for name in sorted(_OURS)},
)
_REMIX = _body("prompt")
_EDIT = _body("prompt", "video", video={"type": "object"})
_EXTENSION = _body("prompt", "video", seconds={"type": "string"}, video={"type": "object"})


@router.post("", openapi_extra=_CREATION)
async def create(
    request: Request,
    key: Annotated[Key, Depends(guards.writer)],
    idempotency_key: Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY)] = None,
) -> Response:
    """Accept a task from a form or JSON body."""
    wanted = _translated(await _fields(request))
    made = await asyncio.to_thread(desk_of(request).submit, key, wanted, idempotency_key)
    return await _accepted(request, made)


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
    return await answers.finished(desk_of(request).settings.state, row, variant, request.headers.get("range"))


@router.post("/extensions", openapi_extra=_EXTENSION)
async def extend(
    request: Request,
    key: Annotated[Key, Depends(guards.writer)],
    idempotency_key: Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY)] = None,
) -> Response:
    """Continue a finished video: the result holds both."""
    fields = await _fields(request)
    fields["extend"] = await _named_video(request, key, fields.pop("video", None))
    made = await asyncio.to_thread(desk_of(request).submit, key, _translated(fields), idempotency_key)
    return await _accepted(request, made)


@router.post("/edits", openapi_extra=_EDIT)
async def edit(
    request: Request,
    key: Annotated[Key, Depends(guards.writer)],
    idempotency_key: Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY)] = None,
) -> Response:
    """A video again with another prompt: as `remix`, which it takes the place of in that format."""
    fields = await _fields(request)
    row = await owned(await _named_video(request, key, fields.get("video")), request, key)
    return await _again(request, row, fields, key, idempotency_key)


@router.post("/{task_id}/remix", openapi_extra=_REMIX)
async def remix(
    row: Owned,
    request: Request,
    key: Annotated[Key, Depends(guards.writer)],
    idempotency_key: Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY)] = None,
) -> Response:
    """The same settings and seed with another prompt."""
    return await _again(request, row, await _fields(request), key, idempotency_key)


async def _named_video(request: Request, key: Key, video: object) -> str:
    """The task of a video: by its id, or by the file itself, which the package sends, if it is a video of the caller's.

    Raises:
        NotAdmittedError: 422, it is neither.
    """
    named = video.get("id") if isinstance(video, dict) else video
    if isinstance(named, str) and named.startswith(_FILE):
        digest = hashlib.sha256(_decoded(named)).hexdigest()
        named = await asyncio.to_thread(desk_of(request).store.of_video, key.id, digest)
    if not isinstance(named, str) or not 0 < len(named) <= 128:
        message = "a finished video of yours is needed: its id, or its file as it was downloaded"
        raise NotAdmittedError(message, status=422, code="invalid", field="video")
    return named


def _decoded(data_url: str) -> bytes:
    try:
        return base64.b64decode(data_url.removeprefix(_FILE), validate=True)
    except (binascii.Error, ValueError):
        return b""


async def _again(request: Request, row: sa.RowMapping, fields: dict, key: Key, idempotency_key: str | None) -> Response:
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
    made = await asyncio.to_thread(desk_of(request).submit, key, wanted, idempotency_key, parent=row["id"])
    return await _accepted(request, made)


async def _accepted(request: Request, made: Submitted) -> Response:
    # The package retries a POST on its own, without an idempotency key: a task exists, so it must not.
    headers = {"x-should-retry": "false", **made.headers}
    return JSONResponse(await _video(desk_of(request), made.row), headers=headers)


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
            async with request.form(max_files=2, max_fields=1000) as form:
                return _unbracketed([(name, await _text(name, value)) for name, value in form.multi_items()])
    except (ValueError, HTTPException) as error:
        raise NotAdmittedError("the form cannot be read", status=400, code="invalid_body") from error
    fields = guards.json_body(await request.body())
    if not isinstance(fields, dict):
        raise NotAdmittedError("the body is not a JSON object", status=400, code="invalid_body")
    return fields


async def _text(name: str, value: UploadFile | str) -> str:
    """Files in base64. Those that are not videos are checked as pictures when the task is admitted."""
    if not isinstance(value, UploadFile):
        return value
    text = pictures.as_text(await value.read())
    return _FILE + text if name == "video" else text


def _unbracketed(form: list[tuple[str, str]]) -> dict:
    """``camera_control[type]=orbit`` becomes ``{"camera_control": {"type": "orbit"}}``; ``a[]`` is the next of a list.

    A form cannot say what is inside one list element of several fields: a plan in a form is one field with JSON.
    """
    fields: dict = {}
    for name, value in form:
        if not _BRACKETS.fullmatch(name):
            fields[name] = value
            continue
        where, *path = name.replace("]", "").split("[")
        inner: dict | list | str | None = fields
        for key, after in zip([where, *path], [*path, None], strict=True):
            made: dict | list | str = value if after is None else [] if after == "" else {}
            if isinstance(inner, list):
                inner.append(made)
                inner = made
            elif isinstance(inner, dict):
                inner = inner.setdefault(key, made)
    if isinstance(fields.get("plan"), str):
        fields["plan"] = guards.json_body(fields["plan"].encode())
    return fields


def _translated(fields: dict) -> GenerateRequest:
    config = {name: fields[name] for name in sorted(_OURS) if fields.get(name) is not None}
    if fields.get("size") is not None:
        config["resolution"] = fields["size"]
    if fields.get("seconds") is not None:
        config["duration"] = fields["seconds"]
    reference = fields.get("input_reference")
    if isinstance(reference, dict):  # the JSON form
        reference = reference.get("image_url")
    ours = {name: fields[name] for name in _TOP if fields.get(name) is not None}
    if reference is not None:
        ours["first_frame"] = reference
    return _validated({"prompt": fields.get("prompt"), "config": config, **ours})


def _validated(given: dict) -> GenerateRequest:
    """Raises RequestValidationError, which names the field."""
    try:
        return GenerateRequest.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
