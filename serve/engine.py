"""A replica: it owns its ranks and a decoder in one placement group, takes tasks from the store, and sees them through.

    claim > ranks denoise (state saved every few seconds) > decoder (frames to storage, then the video) > complete

Ranks and decoder work on different tasks at the same time. A process that dies or freezes is found by its ping. Without
a rank the whole group is made anew and its tasks go on from their last saved states; a decoder is made anew alone, and
makes its frames once more. If the replica itself dies, its leases run out and another replica claims the tasks.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import ray
import sqlalchemy as sa
from ray.exceptions import RayActorError, RayError, RayTaskError

from kling.errors import CheckpointError, ConfigError, InternalError, KlingError
from kling.presets import get_preset

from .admission import NOMINAL, Admission
from .group import PING_EVERY_S, Group, GroupLostError, cause_of
from .lookout import Lookout
from .media import Media
from .metrics import Meter
from .orders import Order
from .ranks import Decoded, Event, Job, RankSettings
from .tasks import Claim, LostLeaseError, TaskStore

log = logging.getLogger("ray.serve")  # JSON lines with what `extra` holds, beside Ray Serve's own

_WRITE_EVERY_S = 0.25  # lease and progress
_STOP_S = 10.0  # until stopped ranks have told so
_CALIBRATE_S = 600.0


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    ranks: RankSettings
    database: str
    budget_bytes: int  # memory that this replica's processes may use together


@dataclass(kw_only=True)
class Attempt:
    """A task in this replica's hands, on the processes that it was begun with."""

    claim: Claim
    group: Group
    holds_ranks: bool = True  # until its latents are saved, or it ends
    reached: Event = field(default_factory=lambda: Event(stage="text"))  # written with the lease

    @property
    def name(self) -> str:
        return f"{self.claim.id}:{self.claim.attempt}"

    @cached_property
    def job(self) -> Job:
        order = Order.from_json(self.claim.order)
        return Job(task_id=self.claim.id, attempt=self.claim.attempt, order=order)

    def reached_columns(self) -> dict[str, str | int]:
        return {"stage": self.reached.stage, "step": self.reached.step, "num_steps": self.reached.num_steps}

    @property
    def named(self) -> dict:
        """What log lines say of it."""
        return {"task": self.claim.id, "attempt": self.claim.attempt}


class Room:
    """Memory over what the idle group holds. Each admitted task fits alone; ranks and decoder may hold one each, which
    together may not."""

    def __init__(self, size: int):
        self.size = size
        self._used = 0
        self._freed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def for_bytes(self, num_bytes: int) -> AsyncIterator[None]:
        """Wait until so many are free, or until nobody else is there."""
        async with self._freed:
            await self._freed.wait_for(lambda: not self._used or self._used + num_bytes <= self.size)
            self._used += num_bytes
        try:
            yield
        finally:
            async with self._freed:
                self._used -= num_bytes
                self._freed.notify_all()


class Engine:
    """The deployment's class. It answers no requests: its work comes from the store."""

    async def __init__(self, settings: EngineSettings):
        self._settings = settings
        self._store = TaskStore(settings.database)
        self._meter = Meter()
        self._name = f"{os.uname().nodename}-{uuid.uuid4().hex[:10]}"
        self._draining = False
        self._fatal: KlingError | None = None
        self._admission = Admission(preset=get_preset(settings.ranks.preset))
        self._calibration = NOMINAL
        self._room = Room(size=settings.budget_bytes)
        self._denoising, self._decoding = asyncio.Lock(), asyncio.Lock()
        self._running: dict[str, asyncio.Task] = {}
        self._loops: list[asyncio.Task] = []
        await self._report("loading")
        self._group = Group(settings.ranks)
        try:
            await self._group.start()
        except (KlingError, GroupLostError) as error:
            self._group.end(str(error))
            await self._report("broken", str(error))
            raise
        await self._calibrate()
        self._watcher = asyncio.create_task(self._group.watch())
        self._loops = [asyncio.create_task(self._work()), asyncio.create_task(self._heartbeat())]

    async def _calibrate(self) -> None:
        """Measure the group, and tell admission. Raises GroupLostError when a process dies meanwhile."""
        try:
            measuring = self._group.calibrate(self._settings.budget_bytes)
            self._calibration = await asyncio.wait_for(measuring, _CALIBRATE_S)
        except (RayError, TimeoutError) as error:
            raise GroupLostError(str(error)) from error
        self._room.size = self._settings.budget_bytes - self._calibration.base_bytes
        measured = self._calibration.to_json()
        log.info("calibrated", extra={"calibration": measured})
        await asyncio.to_thread(self._store.report_worker, self._name, status="ready", calibration=measured)

    async def check_health(self) -> None:
        """Ray Serve replaces the replica when this raises: only when the replica cannot heal itself."""
        if self._fatal is not None:
            raise self._fatal
        for loop in self._loops:
            if loop.done() and not self._draining:
                raise InternalError("a replica's loop ended", where=repr(loop.exception()))

    async def __del__(self) -> None:
        """Drain: stop at the next step, give the tasks back with their states saved, end our processes."""
        if not self._loops:  # it never came up
            return
        self._draining = True
        for loop in self._loops:
            loop.cancel()
        for process in self._group.processes:
            for attempt in self._running:
                with contextlib.suppress(RayError):
                    process.stop.remote(attempt)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=_STOP_S)
        self._watcher.cancel()
        self._group.end("drained")
        await asyncio.to_thread(self._store.forget_worker, self._name)

    # --- loops -----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Claim a task whenever the ranks are free; the decoder may still hold an earlier one."""
        lookout = Lookout(self._store)
        while not self._draining:
            if self._group.lost:
                await self._renew_group()
            if len(self._running) >= 2:
                await asyncio.wait(list(self._running.values()), return_when=asyncio.FIRST_COMPLETED)
                continue
            async with self._denoising:  # wait until the ranks are free
                if self._group.lost:
                    continue
            try:
                claim = await asyncio.to_thread(self._store.claim, self._name)
            except sa.exc.OperationalError as error:  # a database that restarts; its tasks wait, and so do we
                log.warning("the database does not answer", extra={"reason": type(error).__name__})
                await asyncio.sleep(1.0)
                continue
            if claim is None:
                await lookout.change(_WRITE_EVERY_S)  # leases that run out change nothing
                continue
            await self._denoising.acquire()
            attempt = Attempt(claim=claim, group=self._group)
            run = asyncio.create_task(self._see_through(attempt))
            self._running[attempt.name] = run
            run.add_done_callback(lambda done, name=attempt.name: self._running.pop(name, None))

    async def _renew_group(self) -> None:
        """A new group in the same place. Three failures in a row: the replica gives up, and Ray Serve replaces it."""
        why = self._group.lost
        log.warning("group lost", extra={"reason": why, "worker": self._name})
        self._meter.add("kling_failures", cause="group_lost")
        await self._report("loading", why)
        while self._running:  # they see the loss too, and give their tasks back
            await asyncio.wait(list(self._running.values()))
        ranks = replace(self._settings.ranks, token_step_s=self._calibration.token_step_s)
        for _ in range(3):  # what the first one measured still holds: a task waits for these
            self._group = Group(ranks)
            try:
                await self._group.start()
            except (KlingError, GroupLostError) as error:
                self._group.end(str(error))
                self._fatal = CheckpointError("a replica cannot restart its ranks", where=str(error))
                continue
            self._fatal = None
            self._watcher = asyncio.create_task(self._group.watch())
            await self._report("ready")
            return
        raise InternalError("a replica cannot restart its ranks", where=str(self._fatal))

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(2.0)
            await self._report("ready" if self._group.pids and not self._group.lost else "loading")
            waiting, work_s = await asyncio.to_thread(self._store.backlog)
            self._meter.set("kling_waiting_tasks", waiting)
            self._meter.set("kling_backlog_seconds", work_s)
            self._meter.set("kling_memory_bytes", self._group.memory_bytes(), worker=self._name)
            self._meter.set("kling_budget_bytes", self._settings.budget_bytes, worker=self._name)

    async def _report(self, status: str, detail: str = "") -> None:
        group = [pid for pid, _ in self._group.pids] if hasattr(self, "_group") else []
        num_ranks = self._settings.ranks.num_ranks
        pids = json.dumps({"leader": os.getpid(), "ranks": group[:num_ranks], "decoder": group[num_ranks:]})
        await asyncio.to_thread(self._store.report_worker, self._name, status=status, detail=detail, pids=pids)

    # --- one task --------------------------------------------------------------------------------------------------

    async def _see_through(self, attempt: Attempt) -> None:
        """From claim to end: completed, failed, cancelled, or given back."""
        claim = attempt.claim
        keeper = asyncio.create_task(self._keep(attempt))
        started = time.monotonic()
        log.info("task started", extra=attempt.named)
        if claim.attempt == 1:
            self._meter.observe("kling_queue_seconds", time.time() - claim.created_at)
        try:
            predicted = self._admission.predict(attempt.job.order, self._calibration).num_bytes
            async with self._room.for_bytes(predicted - self._calibration.base_bytes):
                made = await (self._both(attempt) if attempt.job.order.chunk else self._one_by_one(attempt))
            if made is None:
                await self._stopped(attempt)
            else:
                await self._complete(attempt, made)
                lasted_s = time.monotonic() - started
                self._meter.add("kling_tasks", state="completed")
                self._meter.observe("kling_task_seconds", lasted_s)
                log.info("task completed", extra={**attempt.named, "seconds": round(lasted_s, 3)})
        except LostLeaseError:
            log.warning("task was claimed by another worker", extra=attempt.named)
            await self._stop(attempt)
        except GroupLostError as error:
            log.warning("task given back", extra={**attempt.named, "reason": str(error)})
            with contextlib.suppress(LostLeaseError):
                await asyncio.to_thread(self._store.release, claim, crashed=True)
        except sa.exc.OperationalError as error:  # nobody's fault: whoever claims it next goes on from its latents
            log.warning("task left to its lease", extra={**attempt.named, "reason": type(error).__name__})
            await self._stop(attempt)
        except Exception as error:  # noqa: BLE001 - it is logged, and ends in the row
            await self._failed(attempt, error)
        finally:
            keeper.cancel()
            self._free_ranks(attempt)

    def _free_ranks(self, attempt: Attempt) -> None:
        """The ranks may take the next task."""
        if attempt.holds_ranks:
            attempt.holds_ranks = False
            self._denoising.release()

    async def _failed(self, attempt: Attempt, error: Exception) -> None:
        """Deterministic: the same order would fail the same way again, so it is not retried."""
        code = "invalid" if isinstance(error, ConfigError) else "internal"
        if not isinstance(error, KlingError):
            log.error("task failed", extra=attempt.named, exc_info=error)
        message = str(error) if isinstance(error, KlingError) else "the engine failed on this task"
        self._meter.add("kling_tasks", state="failed")
        self._meter.add("kling_failures", cause=code)
        with contextlib.suppress(LostLeaseError):
            await asyncio.to_thread(self._store.fail, attempt.claim, code=code, message=message)

    async def _keep(self, attempt: Attempt) -> None:
        """Renew the lease and write how far it is, in one transaction; stop the processes when the owner cancels or
        another worker has the task."""
        written, lookout = time.monotonic(), Lookout(self._store)  # by the claim
        while True:
            await lookout.change(_WRITE_EVERY_S)
            try:
                if time.monotonic() - written < _WRITE_EVERY_S:
                    stop = await asyncio.to_thread(self._store.unwanted, attempt.claim)
                else:
                    reached = attempt.reached_columns()
                    stop = await asyncio.to_thread(self._store.renew, attempt.claim, reached=reached)
                    written = time.monotonic()
            except LostLeaseError:
                stop = True
            except sa.exc.OperationalError as error:
                log.warning("the lease was not renewed", extra={**attempt.named, "reason": type(error).__name__})
                await asyncio.sleep(_WRITE_EVERY_S)
                continue
            if stop:
                await self._stop(attempt)
                await asyncio.sleep(_WRITE_EVERY_S)

    async def _stop(self, attempt: Attempt) -> None:
        for process in attempt.group.processes:
            with contextlib.suppress(RayError):
                await process.stop.remote(attempt.name)

    async def _one_by_one(self, attempt: Attempt) -> Decoded | None:
        """Latents, then frames. None: the task was stopped (cancelled, or drained and given back)."""
        if not await self._denoise(attempt):
            return None
        return await self._decode(attempt)

    async def _both(self, attempt: Attempt) -> Decoded | None:
        """The decoder waits for chunks while the ranks make them."""
        decoding = asyncio.create_task(self._decode(attempt))
        try:
            finished = await self._denoise(attempt)
        except BaseException:
            await self._stop(attempt)  # it would wait for ever
            await asyncio.wait([decoding], timeout=_STOP_S)
            decoding.cancel()
            raise
        if not finished:
            await self._stop(attempt)
        made = await decoding
        return made if finished else None

    async def _denoise(self, attempt: Attempt) -> bool:
        """Latents to storage. False: the task was stopped."""
        try:
            ranks = attempt.group.ranks
            streams = [rank.make.options(num_returns="streaming").remote(attempt.job) for rank in ranks]
            rest = [asyncio.ensure_future(_drained(stream)) for stream in streams[1:]]
            try:
                async for reference in streams[0]:
                    attempt.reached = await reference
                    if attempt.reached.stage == "denoise":
                        self._meter.observe("kling_step_seconds", attempt.reached.step_s)
                await asyncio.gather(*rest)
            except RayError as error:
                raise await self._judge(error, rest, attempt.group) from error
        finally:
            self._free_ranks(attempt)
        return attempt.reached.stage != "stopped"

    async def _decode(self, attempt: Attempt) -> Decoded | None:
        """Frames and video to storage. None: the task was stopped. A lost decoder is made anew once; a task that takes
        the second one with it is given back, and that counts against it."""
        async with self._decoding:
            decoder = attempt.group.decoder
            try:
                return await self._frames(attempt, decoder)
            except RayError:
                self._meter.add("kling_failures", cause="decoder_lost")
                await attempt.group.mended(decoder)
            decoder = attempt.group.decoder
            try:
                return await self._frames(attempt, decoder)
            except RayError as error:
                await attempt.group.mended(decoder)
                raise GroupLostError("a second decoder was lost") from error

    async def _frames(self, attempt: Attempt, decoder: Any) -> Decoded | None:
        """What one decoder makes of a task."""
        last = None
        try:
            async for reference in decoder.decode.options(num_returns="streaming").remote(attempt.job):
                if last is None:
                    self._meter.observe("kling_ttff_seconds", time.time() - attempt.claim.created_at)
                last = await reference
                if not attempt.job.order.chunk:
                    attempt.reached = replace(attempt.reached, stage="decode")
        except RayTaskError as error:
            raise cause_of(error) from error
        return last if last is not None and last.sha256 else None

    async def _complete(self, attempt: Attempt, made: Decoded) -> None:
        """The one write that completes the task; only then what an unfinished one needs is removed."""
        claim = attempt.claim
        result: dict[str, Any] = {"num_bytes": made.video_bytes, "sha256": made.sha256, "num_frames": made.num_frames}
        result["pace"] = list(made.pace)
        await asyncio.to_thread(self._store.complete, claim, result, reached=attempt.reached_columns())
        await asyncio.to_thread(Media(self._settings.ranks.state, claim.id).tidy)

    async def _stopped(self, attempt: Attempt) -> None:
        """The processes stopped on our word: because of a drain, a lost lease, or the owner's cancel."""
        claim, reached = attempt.claim, attempt.reached_columns()  # of what is cancelled, the part made is paid for
        if not await asyncio.to_thread(self._store.renew, claim, reached=reached) or self._draining:
            await asyncio.to_thread(self._store.release, claim, crashed=False)
            return
        await asyncio.to_thread(self._store.cancelled, claim)
        self._meter.add("kling_tasks", state="cancelled")
        await asyncio.to_thread(Media(self._settings.ranks.state, claim.id).remove)

    async def _judge(self, error: RayError, rest: Sequence[asyncio.Future], group: Group) -> Exception:
        """Was it the task's fault or the group's? A group with a failed rank is never used again."""
        if rest:
            await asyncio.wait(rest, timeout=_STOP_S)
        errors = [error, *(future.exception() for future in rest if future.done() and not future.cancelled())]
        dead = any(isinstance(e, RayActorError) for e in errors) or bool(group.lost)
        causes = [cause_of(e) for e in errors if isinstance(e, RayTaskError)]
        if not dead and not rest:
            return causes[0] if causes else GroupLostError(str(error))
        ours = [cause for cause in causes if isinstance(cause, KlingError)]
        if not dead and len(ours) == len(errors):
            return ours[0]  # every rank refused the order in the same way, none is waiting for another
        # A peer that vanished shows as a transport error in the others before its own death is known.
        await asyncio.sleep(0 if dead else PING_EVERY_S)
        transport = any("connection" in str(cause).lower() or "timed out" in str(cause).lower() for cause in causes)
        group.end(f"a rank failed ({type(error).__name__})")
        if dead or transport or not causes:
            return GroupLostError(str(error))
        return causes[0]


async def _drained(stream: ray.ObjectRefGenerator) -> None:
    async for reference in stream:
        await reference
