"""The typed client, sync and async, over httpx. Loads no torch.

    with Client("http://127.0.0.1:8000", api_key="kling_...") as client:
        task = client.generate("a red ball bounces on the grass", config=VideoConfig(seed=1))
        task = client.wait(task.task_id)
        client.download(task.task_id, "ball.mp4")

Both clients retry what is worth retrying (see retries.py). Errors:

    ServiceError
     └─ RefusedError     the service answered with an error: .status, .code, .field, .retry_after_s
    InputError           a request that the service could not take, found before it was sent
"""

import asyncio
import base64
import dataclasses
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from kling.client.retries import RetryPolicy, Tries, retry_after_s
from kling.errors import InputError, ServiceError
from kling.schema import API_PREFIX, GenerateRequest, Task, TaskList, Usage, VideoConfig

Answer = TypeVar("Answer", bound=BaseModel)
Variant = Literal["video", "thumbnail", "spritesheet"]
StreamFormat = Literal["mp4", "mjpeg", "sse", "raw"]
_FIRST_POLL_S, _LAST_POLL_S = 0.2, 5.0
_EVENTS = httpx.Timeout(30.0, read=45.0)  # a heartbeat every 10 s
_FRAMES = httpx.Timeout(30.0, read=None)  # they may be far apart
_PICTURES = ("first_frame", "last_frame")


class RefusedError(ServiceError):
    """The service answered with an error."""

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        fix: str = "",
        status: int = 0,
        code: str = "",
        field: str = "",
        retry_after_s: float = 0.0,
    ):
        super().__init__(what, where=where, fix=fix)
        self.status, self.code, self.field, self.retry_after_s = status, code, field, retry_after_s

    def __reduce__(self) -> tuple:
        return _refused, (self.what, self.where, self.fix, self.status, self.code, self.field, self.retry_after_s)


def _refused(what: str, where: str, fix: str, status: int, code: str, field: str, retry_after_s: float) -> RefusedError:
    return RefusedError(what, where=where, fix=fix, status=status, code=code, field=field, retry_after_s=retry_after_s)


class Client:
    """A connection to a service. Use it as a context manager, or call `close`.

    Args:
        base_url: "http://127.0.0.1:8000".
        api_key: from `python -m serve keys create`.
        transport: an httpx transport, for tests.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._retry, self._sleep = retry or RetryPolicy(), sleep
        self._http = httpx.Client(base_url=base_url, headers=_headers(api_key), transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def generate(
        self, prompt: str, *, config: VideoConfig | None = None, idempotency_key: str | None = None, **more: object
    ) -> Task:
        """Start a task; it is stored safely when this returns.

        Args:
            idempotency_key: default: a fresh one, kept over retries.
            more: other fields of `GenerateRequest`: first_frame and last_frame (a picture's `Path` or bytes), plan,
                extend, callback_url, external_task_id.

        Raises:
            InputError: a field is wrong, or a picture cannot be read.
        """
        return self.submit(_request(prompt, config, more), idempotency_key=idempotency_key)

    def submit(self, request: GenerateRequest, *, idempotency_key: str | None = None) -> Task:
        """`generate` from a whole request."""
        return _parsed(self._send("POST", "/generate", **_posted(request, idempotency_key)), Task)

    def get(self, task_id: str, *, wait_s: float = 0.0) -> Task:
        """Where a task is; with ``wait_s`` as soon as it has ended, or after so many seconds (30 at most)."""
        return _parsed(self._send("GET", f"/status/{_id(task_id)}", params=_waiting(wait_s)), Task)

    def list(self, *, limit: int = 20, after: str | None = None) -> TaskList:
        return _parsed(self._send("GET", "/tasks", params=_page(limit, after)), TaskList)

    def cancel(self, task_id: str) -> Task:
        return _parsed(self._send("POST", f"/cancel/{_id(task_id)}"), Task)

    def delete(self, task_id: str) -> None:
        """Forget an ended task and its files. Deleting it again is not an error."""
        try:
            self._send("DELETE", f"/tasks/{_id(task_id)}")
        except RefusedError as error:
            if error.status != 404:
                raise

    def usage(self) -> Usage:
        return _parsed(self._send("GET", "/usage"), Usage)

    def wait(
        self, task_id: str, *, timeout_s: float | None = None, on_change: Callable[[Task], None] | None = None
    ) -> Task:
        """Ask until the task ends, however it ends: the service answers when it does. Changes before that are seen
        often at first, then at a tenth of the time it should still take.

        Raises:
            ServiceError: not ended after ``timeout_s``. The task goes on; wait again, or cancel it.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        seen, wait_s = None, 0.0
        while True:
            asked_at = time.monotonic()
            task = self.get(task_id, wait_s=wait_s)
            if on_change is not None and task != seen:
                on_change(task)
            seen = task
            if task.done:
                return task
            if (left_s := asked_at + wait_s - time.monotonic()) > 0:  # a service that does not wait with us
                self._sleep(left_s)
            wait_s = _pause(task, deadline)

    def watch(self, task_id: str) -> Iterator[Task]:
        """The task at every change until it ends, pushed by the service. A connection that is lost is made again."""
        watch = _Watch(policy=self._retry)
        while not watch.over:
            try:
                with self._http.stream("GET", f"{API_PREFIX}/events/{_id(task_id)}", timeout=_EVENTS) as answer:
                    if not answer.is_success:
                        answer.read()
                    elif watch.connected():
                        yield from filter(None, map(watch.heard, answer.iter_lines()))
                    pause = watch.ended(answer)
            except httpx.TransportError as error:
                pause = watch.lost(error, self._http.base_url)
            self._sleep(pause)

    def stream(self, task_id: str, *, format: StreamFormat = "mp4") -> Iterator[bytes]:
        """Bytes of the video while it is made."""
        url = f"{API_PREFIX}/stream/{_id(task_id)}"
        try:
            with self._http.stream("GET", url, params={"format": format}, timeout=_FRAMES) as answer:
                if not answer.is_success:
                    answer.read()
                _checked(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error

    def content(self, task_id: str, *, variant: Variant = "video") -> bytes:
        """The finished video (mp4) or a picture of it (JPEG)."""
        return self._send("GET", f"/content/{_id(task_id)}", params={"variant": variant}).content

    def download(self, task_id: str, path: str | Path, *, variant: Variant = "video") -> Path:
        """`content` into a file that appears whole or not at all."""
        return _write(Path(path), self.content(task_id, variant=variant))

    def _send(self, method: str, path: str, **options) -> httpx.Response:
        tries = Tries(policy=self._retry)
        while True:
            try:
                answer = self._http.request(method, f"{API_PREFIX}{path}", timeout=tries.timeout_s, **options)
            except httpx.TransportError as error:
                pause = tries.after_failure(error)
                if pause is None:
                    raise _unreachable(self._http.base_url, error) from error
            else:
                pause = tries.after_answer(answer.status_code, answer.headers)
                if pause is None:
                    return _checked(answer)
            self._sleep(pause)


class AsyncClient:
    """`Client` for asyncio, method by method."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        max_connections: int = 100,
    ):
        self._retry = retry or RetryPolicy()
        limits = httpx.Limits(max_connections=max_connections)
        self._http = httpx.AsyncClient(base_url=base_url, headers=_headers(api_key), transport=transport, limits=limits)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def generate(
        self, prompt: str, *, config: VideoConfig | None = None, idempotency_key: str | None = None, **more: object
    ) -> Task:
        return await self.submit(_request(prompt, config, more), idempotency_key=idempotency_key)

    async def submit(self, request: GenerateRequest, *, idempotency_key: str | None = None) -> Task:
        return _parsed(await self._send("POST", "/generate", **_posted(request, idempotency_key)), Task)

    async def get(self, task_id: str, *, wait_s: float = 0.0) -> Task:
        return _parsed(await self._send("GET", f"/status/{_id(task_id)}", params=_waiting(wait_s)), Task)

    async def list(self, *, limit: int = 20, after: str | None = None) -> TaskList:
        return _parsed(await self._send("GET", "/tasks", params=_page(limit, after)), TaskList)

    async def cancel(self, task_id: str) -> Task:
        return _parsed(await self._send("POST", f"/cancel/{_id(task_id)}"), Task)

    async def delete(self, task_id: str) -> None:
        try:
            await self._send("DELETE", f"/tasks/{_id(task_id)}")
        except RefusedError as error:
            if error.status != 404:
                raise

    async def usage(self) -> Usage:
        return _parsed(await self._send("GET", "/usage"), Usage)

    async def wait(
        self, task_id: str, *, timeout_s: float | None = None, on_change: Callable[[Task], None] | None = None
    ) -> Task:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        seen, wait_s = None, 0.0
        while True:
            asked_at = time.monotonic()
            task = await self.get(task_id, wait_s=wait_s)
            if on_change is not None and task != seen:
                on_change(task)
            seen = task
            if task.done:
                return task
            if (left_s := asked_at + wait_s - time.monotonic()) > 0:  # a service that does not wait with us
                await asyncio.sleep(left_s)
            wait_s = _pause(task, deadline)

    async def watch(self, task_id: str) -> AsyncIterator[Task]:
        watch = _Watch(policy=self._retry)
        while not watch.over:
            try:
                url = f"{API_PREFIX}/events/{_id(task_id)}"
                async with self._http.stream("GET", url, timeout=_EVENTS) as answer:
                    if not answer.is_success:
                        await answer.aread()
                    elif watch.connected():
                        async for line in answer.aiter_lines():
                            if (task := watch.heard(line)) is not None:
                                yield task
                    pause = watch.ended(answer)
            except httpx.TransportError as error:
                pause = watch.lost(error, self._http.base_url)
            await asyncio.sleep(pause)

    async def stream(self, task_id: str, *, format: StreamFormat = "mp4") -> AsyncIterator[bytes]:
        url = f"{API_PREFIX}/stream/{_id(task_id)}"
        try:
            async with self._http.stream("GET", url, params={"format": format}, timeout=_FRAMES) as answer:
                if not answer.is_success:
                    await answer.aread()
                _checked(answer)
                async for chunk in answer.aiter_bytes():
                    yield chunk
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error

    async def content(self, task_id: str, *, variant: Variant = "video") -> bytes:
        return (await self._send("GET", f"/content/{_id(task_id)}", params={"variant": variant})).content

    async def download(self, task_id: str, path: str | Path, *, variant: Variant = "video") -> Path:
        return await asyncio.to_thread(_write, Path(path), await self.content(task_id, variant=variant))

    async def _send(self, method: str, path: str, **options) -> httpx.Response:
        tries = Tries(policy=self._retry)
        while True:
            try:
                answer = await self._http.request(method, f"{API_PREFIX}{path}", timeout=tries.timeout_s, **options)
            except httpx.TransportError as error:
                pause = tries.after_failure(error)
                if pause is None:
                    raise _unreachable(self._http.base_url, error) from error
            else:
                pause = tries.after_answer(answer.status_code, answer.headers)
                if pause is None:
                    return _checked(answer)
            await asyncio.sleep(pause)


def _headers(api_key: str) -> dict[str, str]:
    if not api_key.isascii() or not api_key.strip():
        raise InputError("the API key is not one", where="api_key", fix="Make one: python -m serve keys create")
    return {"Authorization": f"Bearer {api_key}"}


def _request(prompt: str, config: VideoConfig | None, more: dict[str, object]) -> GenerateRequest:
    """Raises InputError that names the field."""
    fields = {name: _picture(value, name) if name in _PICTURES else value for name, value in more.items()}
    try:
        return GenerateRequest.model_validate({"prompt": prompt, "config": config or VideoConfig(), **fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(first["msg"], where=".".join(map(str, first["loc"])) or "request") from None


def _picture(given: object, name: str) -> object:
    """A picture's file or bytes as the text that is sent; what is text already stays."""
    try:
        data = given.read_bytes() if isinstance(given, Path) else given
    except OSError as error:
        raise InputError(f"cannot read the picture ({error.strerror})", where=f"{name}: {given}") from None
    return base64.b64encode(data).decode() if isinstance(data, bytes) else data


def _posted(request: GenerateRequest, idempotency_key: str | None) -> dict:
    """Body and headers."""
    body = request.model_dump(mode="json", exclude_none=True)
    return {"json": body, "headers": {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}}


@dataclass(kw_only=True)
class _Watch:
    """What a watcher knows between connections: the last thing it was told, and its tries."""

    policy: RetryPolicy
    last: Task | None = None
    over: bool = False
    tries: Tries = dataclasses.field(init=False)

    def __post_init__(self):
        self.tries = Tries(policy=self.policy)

    def connected(self) -> bool:
        self.tries = Tries(policy=self.policy)
        return True

    def heard(self, line: str) -> Task | None:
        """The task that a line of an event stream tells, if it is news."""
        self.over |= line == "event: deleted"
        if not line.startswith("data: {") or line == "data: {}":
            return None
        task = Task.model_validate_json(line[len("data: ") :])
        news, self.last = task != self.last, task
        self.over |= task.done
        return task if news else None

    def ended(self, answer: httpx.Response) -> float:
        """Seconds until the next connection; 0 when nothing more is to come. Raises RefusedError."""
        if self.over:
            return 0.0
        # A stream that stops before its task has ended was cut by a service that stops: it comes back.
        pause = self.tries.after_answer(503 if answer.is_success else answer.status_code, answer.headers)
        if pause is None:
            _checked(answer)
            raise ServiceError("the events stop before the task has ended", where=str(answer.url))
        return pause

    def lost(self, error: httpx.TransportError, base_url: httpx.URL) -> float:
        """Seconds until the next try. Raises ServiceError when there is none."""
        pause = self.tries.after_failure(error)
        if pause is None:
            raise _unreachable(base_url, error) from error
        return pause


def _parsed(answer: httpx.Response, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        fix = "Is this a Kling service of this version?"
        raise ServiceError("the answer is not understood", where=str(answer.url), fix=fix) from error


def _checked(answer: httpx.Response) -> httpx.Response:
    """The answer, or RefusedError with what the service said."""
    if answer.is_success:
        return answer
    code, message, field = "", answer.reason_phrase, ""
    try:
        problem = answer.json()["error"]
        code, message, field = problem["code"], problem["message"], problem.get("field") or ""
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        message = answer.text[:200] or message
    raise RefusedError(
        f"the service refused ({answer.status_code})",
        where=str(answer.url),
        fix=message,
        status=answer.status_code,
        code=code,
        field=field,
        retry_after_s=retry_after_s(answer.headers),
    )


def _unreachable(base_url: httpx.URL, error: httpx.TransportError) -> ServiceError:
    reason = str(error) or type(error).__name__
    return ServiceError(f"no answer ({reason})", where=str(base_url), fix="Is the service running?")


def _pause(task: Task, deadline: float | None) -> float:
    """Seconds until the next look. Raises ServiceError past the deadline."""
    if deadline is not None and time.monotonic() > deadline:
        raise ServiceError("the task has not ended in time", where=task.task_id, fix="Wait again, or cancel it")
    return min(_LAST_POLL_S, max(_FIRST_POLL_S, (task.eta_s or 0.0) / 10))


def _waiting(wait_s: float) -> dict[str, float]:
    return {"wait_s": round(wait_s, 3)} if wait_s > 0 else {}


def _page(limit: int, after: str | None) -> dict[str, str | int]:
    return {"limit": limit} if after is None else {"limit": limit, "after": after}


def _id(task_id: str) -> str:
    """A task id as one path segment, whatever it holds."""
    return quote(task_id, safe="") or "%20"


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
