"""Answers that are media: a finished video, a range of its bytes, a picture of it, and streams to viewers."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import sqlalchemy as sa
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kling.errors import InputError

from . import streams
from .admission import NotAdmittedError
from .media import Media


async def finished(state: str, row: sa.RowMapping, variant: str, wanted: str | None = None) -> Response:
    """A finished task's video, or the range of its bytes that a player wants, or a JPEG of it.

    Raises:
        NotAdmittedError: 409 while there is none, 404 when its file is gone.
    """
    if row["state"] != "completed":
        raise NotAdmittedError(f"there is no video: the task is {row['state']}", status=409, code="no_video")
    try:
        video = await asyncio.to_thread(Media(state, row["id"]).load_video)
    except InputError:
        raise NotAdmittedError("the video is gone", status=404, code="not_found") from None
    if variant == "video":
        headers = {"Content-Disposition": f'inline; filename="{row["id"]}.mp4"', "Accept-Ranges": "bytes"}
        return _ranged(video, headers, wanted)
    return Response(await asyncio.to_thread(streams.pictures, video, variant), media_type="image/jpeg")


def _ranged(video: bytes, headers: dict[str, str], wanted: str | None) -> Response:
    """The whole file, or the one range asked for; several ranges, and what is none, get the whole file."""
    match = re.fullmatch(r"bytes=(\d{0,12})-(\d{0,12})", wanted or "")
    if match is None or not any(match.groups()):
        return Response(video, media_type="video/mp4", headers=headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(video) - int(last))
    end = min(len(video), int(last) + 1) if first and last else len(video)
    if start >= end:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(video)}"})
    headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(video)}"}
    return Response(video[start:end], status_code=206, media_type="video/mp4", headers=headers)


async def watched(
    viewers: asyncio.Semaphore, body: AsyncIterator[bytes], media_type: str, headers: dict[str, str]
) -> StreamingResponse:
    """A streaming answer to one viewer more. Raises NotAdmittedError (503) when there are too many."""
    if viewers.locked():
        raise NotAdmittedError("too many open streams", status=503, code="too_many_viewers", retry_after_s=5.0)
    await viewers.acquire()
    return _Watched(viewers, _filled(body), media_type, headers)


class _Watched(StreamingResponse):
    """Counts as a viewer until it ends, even if its receiver is gone before it begins."""

    def __init__(self, viewers: asyncio.Semaphore, body: AsyncIterator[bytes], media_type: str, headers: dict):
        super().__init__(body, media_type=media_type, headers=headers)
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._viewers.release()


async def _filled(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Without empty chunks."""
    async with contextlib.aclosing(body) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk:
                yield chunk
