"""The HTTP side: keys, admission, task routes. It makes nothing itself: it writes rows and reads what workers leave.

Several ingress replicas may run; all they share is the database and the state folder.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from kling.errors import InputError
from kling.presets import get_preset
from kling.scene.plan import ScenePlan
from kling.schema import (
    API_PREFIX,
    FINAL_STATES,
    GenerateRequest,
    Health,
    Problem,
    Recommendations,
    Task,
    TaskList,
    Usage,
)

from . import advice, answers, guards, pictures, streams
from .addresses import check_callback
from .admission import NOMINAL, Admission, Calibration, NotAdmittedError
from .endings import Endings
from .keys import WARN_SHARE, Key, KeyStore, service_secret
from .links import is_opened_by
from .media import Media
from .metrics import Meter
from .orders import Order
from .tasks import NewTask, TaskStore, new_id
from .views import task_view
from .webhooks import Courier

log = logging.getLogger("ray.serve")  # JSON lines with what `extra` holds, beside Ray Serve's own

_STUDIO = Path(__file__).parent / "studio"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {
    "Content-Security-Policy": _PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
WORKER_SEEN_S = 10.0  # a worker that was silent for so long does not count as ready
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,128}$"


@dataclass(frozen=True, kw_only=True)
class IngressSettings:
    preset: str
    state: str
    database: str
    num_workers: int
    max_waiting: int = 1000  # tasks in the queue, all keys together
    max_task_s: float = 900.0
    scales_to_zero: bool = False  # no replica is no fault then
    max_viewers: int = 64  # open streams of one ingress replica


class Desk:
    """What every route needs: the stores, the rules, and the one way in for a new task."""

    def __init__(self, settings: IngressSettings):
        self.settings = settings
        self.store = TaskStore(settings.database)
        self.secret = service_secret(settings.state)
        self.keys = KeyStore(self.store.engine, self.secret)
        self.admission = Admission(preset=get_preset(settings.preset), max_task_s=settings.max_task_s)
        self.meter = Meter()
        self.endings = Endings(self.store)
        self.viewers = asyncio.Semaphore(settings.max_viewers)

    def calibration(self) -> Calibration:
        """What the latest replica measured; the nominal one until then."""
        for worker in self.store.workers(within_s=3600):
            if worker["calibration"]:
                return Calibration.from_json(worker["calibration"])
        return NOMINAL

    def submit(
        self,
        key: Key,
        request: GenerateRequest,
        idempotency_key: str | None,
        *,
        parent: str | None = None,
        callback_base: str | None = None,
    ) -> "Submitted":
        """Admit, charge and store a request, in one transaction: all of it or nothing.

        Args:
            parent: the task it is a remix of.
            callback_base: where the caller of the official form reached the service.

        Raises:
            NotAdmittedError, serve.keys.RefusedError: with the reason.
        """
        fingerprint = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        if idempotency_key is not None and (replay := self._replay(key, idempotency_key, fingerprint)) is not None:
            return Submitted(row=replay, share=0.0, replayed=True)
        self.keys.count_request(key)
        check_callback(request.callback_url)
        before = self._continued(key, request.extend)
        opened = {
            name: pictures.opened(text, f"{name}_frame")
            for name, text in (("first", request.first_frame), ("last", request.last_frame))
            if text is not None
        }
        continued = None if before is None else Order.from_json(before["order"])
        admitted = self.admission.admit(request, self.calibration(), continued=continued)
        waiting, work_s = self.store.backlog()
        if waiting >= self.settings.max_waiting:
            wait = max(1.0, work_s / self.settings.num_workers / 10)
            raise NotAdmittedError("the queue is full", status=503, code="queue_full", retry_after_s=wait)
        task_id = new_id()
        media = Media(self.settings.state, task_id)
        task = NewTask(
            id=task_id,
            owner=key.id,
            request=request.model_dump_json(exclude={"first_frame", "last_frame"}),  # they are files
            order=admitted.order.to_json(),
            adjustments="[" + ",".join(change.model_dump_json() for change in admitted.adjustments) + "]",
            predicted_s=admitted.prediction.seconds,
            predicted_bytes=admitted.prediction.num_bytes,
            priority=request.config.priority,
            deadline_s=request.config.deadline_s,
            fingerprint=fingerprint,
            idempotency_key=idempotency_key,
            external_id=request.external_task_id,
            parent=parent or (before["id"] if before is not None else None),
            kind="extend" if before is not None else "image" if opened else "text",
            callback_url=request.callback_url,
            callback_base=callback_base,
        )
        try:
            if before is not None:
                opened["first"] = self._last_frame(media, before)
            order = _with_pictures(media, admitted.order, opened)
            return self._stored(key, replace(task, order=order.to_json(), charged_s=order.duration_s))
        except BaseException:
            media.remove()
            raise

    def _stored(self, key: Key, task: NewTask) -> "Submitted":
        """Row and charge in one transaction."""
        idempotency_key, fingerprint = task.idempotency_key, task.fingerprint
        try:
            with self.store.engine.begin() as connection:
                task_id = self.store.add(connection, task)
                share = self.keys.charge(connection, key, task.charged_s)
        except sa.exc.IntegrityError:  # the same name, twice at once: the other request was first
            if idempotency_key is not None and (replay := self._replay(key, idempotency_key, fingerprint)) is not None:
                Media(self.settings.state, task.id).remove()
                return Submitted(row=replay, share=0.0, replayed=True)
            taken = f"you already have a task named {task.external_id!r}"
            raise NotAdmittedError(taken, status=409, code="name_taken", field="external_task_id") from None
        row = self.store.get(task_id)
        assert row is not None
        for change in json.loads(task.adjustments):
            self.meter.add("kling_downgrades", field=change["field"])
        log.info("task accepted", extra={"task": task_id, "predicted_s": round(task.predicted_s, 2)})
        return Submitted(row=row, share=share, replayed=False)

    def _replay(self, key: Key, idempotency_key: str, fingerprint: str) -> sa.RowMapping | None:
        with self.store.reading() as connection:
            row = self.store.replayed(connection, key.id, idempotency_key)
        if row is not None and row["fingerprint"] != fingerprint:
            raise NotAdmittedError(
                "this idempotency key was used for another request", status=409, code="idempotency_conflict"
            )
        return row

    def _continued(self, key: Key, task_id: str | None) -> sa.RowMapping | None:
        """The task whose video is extended. Raises NotAdmittedError: 404 not the caller's, 409 it has no video."""
        if task_id is None:
            return None
        row = self.store.get(task_id, key.id)
        if row is None:
            raise NotAdmittedError("no such task", status=404, code="not_found", field="extend")
        if row["state"] != "completed":
            message = f"there is no video to continue: that task is {row['state']}"
            raise NotAdmittedError(message, status=409, code="no_video", field="extend")
        return row

    def _last_frame(self, media: Media, before: sa.RowMapping):
        """The picture an extension starts with; the video before it is kept with the new task."""
        try:
            video = Media(self.settings.state, before["id"]).load_video()
        except InputError:
            raise NotAdmittedError("the video is gone", status=404, code="not_found", field="extend") from None
        media.save_before(video)
        return pictures.last_of(video)

    def advice(self, key: Key) -> Recommendations:
        """What the key's owner could do better, from the tasks of the last weeks."""
        windows = self.keys.windows(key)
        with self.store.reading() as connection:
            return Recommendations(recommendations=advice.recommend(connection, key.id, windows, self.admission.preset))

    def view(self, row: sa.RowMapping) -> Task:
        ahead = self.store.ahead(row) if row["state"] == "queued" else None
        return task_view(row, ahead, self.settings.num_workers)

    def remove(self, row: sa.RowMapping) -> None:
        """Delete an ended task with its files. Raises NotAdmittedError (409) while it is not ended."""
        if row["state"] not in FINAL_STATES:
            raise NotAdmittedError("cancel the task first: it has not ended", status=409, code="not_ended")
        Media(self.settings.state, row["id"]).remove()
        self.store.delete(row["id"])


def _with_pictures(media: Media, order: Order, opened: dict) -> Order:
    """The order that names its pictures, which are then in storage at its size."""
    for name, picture in opened.items():
        png, digest = pictures.fitted(picture, order.width_px, order.height_px)
        media.save_picture(name, png)
        order = replace(order, **{f"{name}_frame": digest})
    return order


@dataclass(frozen=True, kw_only=True)
class Submitted:
    row: sa.RowMapping
    share: float  # of the fullest quota window
    replayed: bool

    @property
    def headers(self) -> dict[str, str]:
        """What every format's answer says beside the task."""
        said = {"Idempotent-Replayed": "true"} if self.replayed else {}
        if self.share >= WARN_SHARE:
            said["Kling-Quota-Warning"] = f"{self.share:.0%} of a quota window is used; refused above 95%"
        return said


def desk_of(request: Request) -> Desk:
    return request.app.state.desk


async def owned(task_id: str, request: Request, key: Annotated[Key, Depends(guards.reader)]) -> sa.RowMapping:
    """The caller's own task; somebody else's looks like none at all."""
    row = await asyncio.to_thread(desk_of(request).store.get, task_id, key.id)
    if row is None:
        raise NotAdmittedError("no such task", status=404, code="not_found", field="task_id")
    return row


Owned = Annotated[sa.RowMapping, Depends(owned)]
_PROBLEMS: dict[int | str, dict] = {
    code: {"model": Problem} for code in (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
}
api = APIRouter(prefix=API_PREFIX, responses=_PROBLEMS)
health = APIRouter(tags=["health"])


@api.post("/generate", status_code=202, tags=["tasks"])
async def generate(
    body: GenerateRequest,
    request: Request,
    response: Response,
    key: Annotated[Key, Depends(guards.writer)],
    idempotency_key: Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY)] = None,
) -> Task:
    """Accept a task. The answer comes as soon as the task is safely stored; poll, watch or stream it by its id."""
    desk = desk_of(request)
    made = await asyncio.to_thread(desk.submit, key, body, idempotency_key)
    response.headers["Location"] = f"{API_PREFIX}/status/{made.row['id']}"
    response.headers.update(made.headers)
    return await asyncio.to_thread(desk.view, made.row)


@api.get("/status/{task_id}", tags=["tasks"])
async def status(row: Owned, request: Request, wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0) -> Task:
    """Where a task is: step by step, its place in the queue, when it should be done, and what was adjusted.

    With `wait_s` the answer comes when the task has ended, or after so many seconds."""
    desk = desk_of(request)
    if wait_s and row["state"] not in FINAL_STATES:
        await desk.endings.wait(row["id"], wait_s)
        row = await asyncio.to_thread(desk.store.get, row["id"]) or row
    return await asyncio.to_thread(desk.view, row)


@api.get("/plan/{task_id}", tags=["tasks"])
async def plan(row: Owned, request: Request) -> ScenePlan:
    """What happens in a task's video, decided before it was drawn. Changed, it may be a new request's `plan`."""
    text = await asyncio.to_thread(Media(desk_of(request).settings.state, row["id"]).load_plan)
    if text is None:
        why = "it has not been decided yet" if row["state"] in ("queued", "running") else "it was made from text alone"
        raise NotAdmittedError(f"there is no plan: {why}", status=409, code="no_plan")
    return ScenePlan.model_validate_json(text)


@api.get("/tasks", tags=["tasks"])
async def tasks(
    request: Request,
    key: Annotated[Key, Depends(guards.reader)],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=128)] = None,
) -> TaskList:
    """Your tasks, newest first."""
    desk = desk_of(request)
    rows, more = await asyncio.to_thread(lambda: desk.store.page(key.id, limit=limit, after=after))
    return TaskList(tasks=tuple(task_view(row) for row in rows), next_after=rows[-1]["id"] if more else None)


@api.post("/cancel/{task_id}", tags=["tasks"])
async def cancel(row: Owned, request: Request, key: Annotated[Key, Depends(guards.writer)]) -> Task:
    """Stop a task: at once if it waits, within a step if it runs. An ended task stays as it is."""
    desk = desk_of(request)
    await asyncio.to_thread(desk.store.cancel, row["id"])
    now = await asyncio.to_thread(desk.store.get, row["id"], key.id)
    return await asyncio.to_thread(desk.view, now or row)


@api.delete("/tasks/{task_id}", status_code=204, tags=["tasks"])
async def delete(row: Owned, request: Request, key: Annotated[Key, Depends(guards.writer)]) -> None:
    """Forget an ended task and remove its files."""
    await asyncio.to_thread(desk_of(request).remove, row)


async def opened(
    task_id: str,
    request: Request,
    credentials: guards.Credentials,
    expires: Annotated[int, Query(ge=0, le=2**53)] = 0,
    signature: Annotated[str, Query(max_length=128)] = "",
) -> sa.RowMapping:
    """The task of a signed link, else the caller's own."""
    desk = desk_of(request)
    if signature and is_opened_by(desk.secret, task_id, expires, signature):
        row = await asyncio.to_thread(desk.store.get, task_id)
        if row is not None:
            return row
    key = await guards.reader(await guards.caller(request, credentials))
    return await owned(task_id, request, key)


@api.get("/content/{task_id}", tags=["media"], response_class=Response)
async def content(
    row: Annotated[sa.RowMapping, Depends(opened)],
    request: Request,
    variant: Literal["video", "thumbnail", "spritesheet"] = "video",
) -> Response:
    """The finished video (mp4), or a JPEG of it."""
    state = desk_of(request).settings.state
    return await answers.finished(state, row, variant, request.headers.get("range"))


@api.get("/stream/{task_id}", tags=["media"], response_class=StreamingResponse)
async def stream(
    row: Owned, request: Request, format: Literal["mp4", "mjpeg", "sse", "raw"] = "mp4"
) -> StreamingResponse:
    """Frames while they are made."""
    desk, view = desk_of(request), task_view(row)
    frames = streams.stream(desk.store, desk.settings.state, row, format, view.granted.fps)
    granted = view.granted
    headers = {
        "Cache-Control": "no-store",
        "Kling-Width": str(granted.width_px),
        "Kling-Height": str(granted.height_px),
        "Kling-Fps": str(granted.fps),
        "Kling-Frames": str(granted.num_frames),
    }
    return await answers.watched(desk.viewers, frames, streams.MEDIA_TYPES[format], headers)


@api.get("/events/{task_id}", tags=["media"], response_class=StreamingResponse)
async def events(row: Owned, request: Request) -> StreamingResponse:
    """The task's progress as server-sent events, with a heartbeat, until it ends."""
    desk = desk_of(request)
    told = streams.events(desk.store, row, desk.settings.num_workers)
    return await answers.watched(desk.viewers, told, "text/event-stream", {"Cache-Control": "no-store"})


@api.get("/usage", tags=["keys"])
async def usage(request: Request, key: Annotated[Key, Depends(guards.reader)]) -> Usage:
    """What your key has used this hour, day and month, and what you could do about it."""
    desk = desk_of(request)
    windows = await asyncio.to_thread(desk.keys.windows, key)
    said = await asyncio.to_thread(desk.advice, key)
    return Usage(windows=windows, recommendations=tuple(one.advice for one in said.recommendations))


@api.get("/recommendations", tags=["keys"])
async def recommendations(request: Request, key: Annotated[Key, Depends(guards.reader)]) -> Recommendations:
    """What you could do better: when to ask, which size and length, and what your quota says about it."""
    return await asyncio.to_thread(desk_of(request).advice, key)


@health.get("/", include_in_schema=False)
async def studio() -> FileResponse:
    """The studio: one page, nothing loaded from anywhere else."""
    return FileResponse(_STUDIO / "index.html", headers=_PAGE_HEADERS)


@health.get("/studio/{name}", include_in_schema=False)
async def studio_part(name: str) -> FileResponse:
    if name not in ("studio.css", "studio.js", "service.js", "stage.js"):
        raise NotAdmittedError("the studio has no such part", status=404, code="not_found")
    return FileResponse(_STUDIO / name, headers=_PAGE_HEADERS)


@health.get("/live")
async def live() -> Health:
    """This process answers."""
    return Health(status="live")


@health.get("/ready", responses={503: {"model": Health}})
async def ready(request: Request) -> Response:
    """The database answers and a replica has its weights loaded (200), or not yet (503)."""
    desk = desk_of(request)
    workers = await asyncio.to_thread(lambda: desk.store.workers(within_s=WORKER_SEEN_S))
    if any(worker["status"] == "ready" for worker in workers) or desk.settings.scales_to_zero:
        return JSONResponse(Health(status="ready", detail=f"{len(workers)} replicas").model_dump())
    detail = "; ".join(f"{worker['status']}: {worker['detail']}" for worker in workers) or "no replica yet"
    return JSONResponse(Health(status="not ready", detail=detail).model_dump(), status_code=503)


def build_api(settings: IngressSettings) -> FastAPI:
    """The whole HTTP application."""
    desk = Desk(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        courier = asyncio.create_task(Courier(desk.store, desk.secret).run())
        yield
        courier.cancel()

    about = "Text to video: tasks, frames while they are made, files."
    app = FastAPI(title="Kling", version="1.6", description=about, lifespan=lifespan)
    app.state.desk = desk
    guards.install(app)
    app.include_router(health)
    app.include_router(api)
    # Imported here: both faces stand on this module. The official routes come first, their names look like video ids.
    from . import official_face, openai_face

    app.include_router(official_face.router)
    app.include_router(openai_face.router)
    return app
