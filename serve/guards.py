"""What stands before every route: keys and scopes, size and pace of bodies, and errors in the form of each API."""

import asyncio
import json
import logging
import math
import traceback
import uuid
from typing import Annotated

import anyio
import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kling.errors import KlingError
from kling.schema import MAX_BODY_BYTES, Problem, ProblemBody

from .admission import NotAdmittedError
from .keys import BadTokenError, Key, RefusedError

log = logging.getLogger("ray.serve")  # JSON lines with what `extra` holds, beside Ray Serve's own

_MAX_HEADER_BYTES = 64 * 2**10
_BODY_TIMEOUT_S = 30.0  # a body that is not there by then is not worth a connection
_bearer = HTTPBearer(auto_error=False, description="kling_... key, or a JWT (HS256) made with an access key pair")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_OFFICIAL = tuple(f"/v1/videos/{kind}" for kind in ("text2video", "image2video", "video-extend"))
# Codes of the Kling official format: by our code, else by HTTP status.
_OFFICIAL_CODES = {
    "no_key": 1001,
    "bad_token": 1002,
    "early_token": 1003,
    "late_token": 1004,
    "quota_exceeded": 1102,
    "invalid_body": 1200,
    "invalid": 1201,
    "queue_full": 1303,
}
_OFFICIAL_STATUS = {400: 1200, 401: 1000, 403: 1103, 404: 1203, 405: 1202, 408: 1200, 409: 1201, 413: 1200, 415: 1200,
                    429: 1302, 431: 1200, 503: 5001}  # fmt: skip
# The statuses that format knows.
_OFFICIAL_ANSWERED = {405: 404, 408: 400, 409: 400, 413: 400, 415: 400, 422: 400, 431: 400}


async def caller(request: Request, credentials: Credentials) -> Key:
    """The key that the request carries. Raises NotAdmittedError (401)."""
    if credentials is None:
        raise NotAdmittedError("a valid bearer key is needed", status=401, code="no_key")
    if len(credentials.credentials) > 4096:
        raise NotAdmittedError("a valid bearer key is needed", status=401, code="unauthorized")
    keys = request.app.state.desk.keys
    try:
        found = await asyncio.to_thread(keys.authenticate, credentials.credentials)
    except BadTokenError as error:
        raise NotAdmittedError(error.message, status=401, code=error.code) from None
    if found is None:
        raise NotAdmittedError("a valid bearer key is needed", status=401, code="unauthorized")
    return found


def _scoped(scope: str):
    async def scoped(key: Annotated[Key, Depends(caller)]) -> Key:
        if scope not in key.scopes:
            raise NotAdmittedError(f"this key lacks the scope {scope!r}", status=403, code="forbidden")
        return key

    return scoped


reader, writer = _scoped("read"), _scoped("generate")


class Bodies:
    """Refuses headers and bodies that are too large, and bodies that come too slowly, before a route sees them."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            problem = ProblemBody(code="too_large", message=f"headers are at most {_MAX_HEADER_BYTES // 2**10} KiB")
            await _answer(scope["path"], 431, problem)(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            await _too_large(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        received: list[Message] = []
        size = 0
        with anyio.move_on_after(_BODY_TIMEOUT_S) as clock:
            while not received or received[-1].get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                size += len(message.get("body", b""))
                if size > MAX_BODY_BYTES:
                    await _too_large(scope, receive, send)
                    return
                received.append(message)
        if clock.cancelled_caught:
            problem = ProblemBody(code="slow_body", message="the request's body did not arrive in time")
            await _answer(scope["path"], 408, problem)(scope, receive, send)
            return
        waiting = iter(received)

        async def replay() -> Message:
            message = next(waiting, None)
            return message if message is not None else await receive()

        await self.app(scope, replay, send)


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    message = f"bodies are at most {MAX_BODY_BYTES // 2**20} MiB"
    await _answer(scope["path"], 413, ProblemBody(code="too_large", message=message))(scope, receive, send)


def install(app: FastAPI) -> None:
    """Put the guards on an application."""
    app.add_middleware(Bodies)

    @app.exception_handler(NotAdmittedError)
    async def not_admitted(request: Request, error: NotAdmittedError) -> Response:
        request.app.state.desk.meter.add("kling_refusals", code=error.code)
        body = ProblemBody(code=error.code, message=error.what, field=error.field)
        return _answer(request.url.path, error.status, body, retry_after_s=error.retry_after_s)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        request.app.state.desk.meter.add("kling_refusals", code=error.code)
        body = ProblemBody(code=error.code, message=error.message)
        return _answer(request.url.path, 429, body, retry_after_s=error.retry_after_s)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = tuple({"field": _field(e["loc"]), "message": e["msg"]} for e in error.errors())
        first = problems[0]
        text = f"{first['field']}: {first['message']}"
        body = ProblemBody(code="invalid", message=text, field=first["field"], details=problems)
        return _answer(request.url.path, 422, body)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        answer = _answer(request.url.path, error.status_code, ProblemBody(code="http", message=str(error.detail)))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(KlingError)
    async def ours(request: Request, error: KlingError) -> Response:
        log.error("request failed", extra={"error": type(error).__name__, "path": request.url.path})
        body = ProblemBody(code="unavailable", message="the service cannot do this now")
        return _answer(request.url.path, 503, body, retry_after_s=5.0)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        # Where, not what: the text of an error may hold what the caller sent.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("request broke", extra={"error": type(error).__name__, "path": request.url.path, "where": where})
        body = ProblemBody(code="internal", message="the service has a fault here; it is logged")
        return _answer(request.url.path, 500, body)

    @app.exception_handler(sa.exc.OperationalError)
    async def database(request: Request, error: sa.exc.OperationalError) -> Response:
        log.error("database failed", extra={"error": str(error.orig), "path": request.url.path})
        body = ProblemBody(code="unavailable", message="the database does not answer")
        return _answer(request.url.path, 503, body, retry_after_s=2.0)


def official_answer(request: Request, *, data: object) -> dict:
    """A success in the Kling official form."""
    return {"code": 0, "message": "SUCCEED", "request_id": uuid.uuid4().hex, "data": data}


def _answer(path: str, status: int, problem: ProblemBody, *, retry_after_s: float = 0.0) -> JSONResponse:
    """An error in the form of the API that the path belongs to."""
    body: dict = Problem(error=problem).model_dump()
    if path.startswith(_OFFICIAL):
        code = _OFFICIAL_CODES.get(problem.code, _OFFICIAL_STATUS.get(status, 5000))
        status = 429 if code == 1303 else _OFFICIAL_ANSWERED.get(status, status)
        body = {"code": code, "message": problem.message, "request_id": uuid.uuid4().hex}
    elif path.startswith("/v1/videos"):
        status = 400 if status == 422 else status
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = {"error": {"message": problem.message, "type": kind, "param": problem.field, "code": problem.code}}
    headers = {}
    if status == 409:  # the openai package tries those again by itself; nothing would change
        headers["x-should-retry"] = "false"
    if retry_after_s > 0:
        headers["Retry-After"] = str(math.ceil(retry_after_s))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=status, headers=headers)


def json_body(body: bytes) -> object:
    """A JSON value without NaN and infinities. Raises NotAdmittedError (400)."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise NotAdmittedError("the body is not JSON", status=400, code="invalid_body") from None


def _field(location: tuple[int | str, ...]) -> str:
    """ "config.seed" from ("body", "config", "seed")."""
    # Where a field may be one of several things, pydantic names the thing too: "CameraControl", "function-after[...]".
    skipped = ("body", "query", "path", "header", "bool", "CameraControl")
    parts = [str(part) for part in location if part not in skipped and "[" not in str(part)]
    return ".".join(parts) or "body"
