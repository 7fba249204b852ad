"""A replica: it owns its ranks and a decoder in one placement group, takes tasks from the store, and sees them through.

    claim > ranks denoise (state saved every few seconds) > decoder (frames to storage, then the video) > complete

Ranks and decoder work on different tasks at the same time. A process that dies or freezes is found by its ping; the
whole group is then made anew and its tasks go on from their last saved states. If the replica itself dies, its leases
run out and another replica claims the tasks.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from kling.errors import CheckpointError, ConfigError, InternalError, KlingError
from kling.presets import get_preset

from .admission import Calibration
from .media import Media
from .metrics import Meter
from .orders import Order
from .ranks import Decoded, Decoder, Event, Job, Rank, RankSettings
from .tasks import LEASE_S, Claim, LostLeaseError, TaskStore

log = logging.getLogger("ray.serve")  # JSON lines with what `extra` holds, beside Ray Serve's own

_POLL_S = 0.1  # how often an idle replica looks for work
# On an overloaded machine a healthy process was seen silent for more than 5 s.
_PING_EVERY_S, _PING_TIMEOUT_S = 1.0, 20.0
_STOP_S = 10.0  # until stopped ranks have told so
_PROGRESS_EVERY_S = 0.25
_LOAD_TIMEOUT_S = 1800.0  # 12B parameters from a slow place


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    ranks: RankSettings
    database: str
    budget_bytes: int  # memory that this replica's processes may use together


class GroupLostError(Exception):
    """A process of the group died, froze, or left the others waiting."""


class Group:
    """The processes of one replica, made and lost together."""

    def __init__(self, settings: RankSettings):
        placed = ray.util.get_current_placement_group()

        def place(bundle: int) -> dict:
            if placed is None:  # a replica outside Ray Serve (a test): anywhere
                return {"num_cpus": 0}
            strategy = PlacementGroupSchedulingStrategy(placed, placement_group_bundle_index=bundle)
            return {"num_cpus": 0 if bundle == 0 else 1, "scheduling_strategy": strategy}

        gpus = {"num_gpus": 1} if settings.device.startswith("cuda") else {}
        self.settings = settings
        self.ranks = [Rank.options(**place(i + 1), **gpus).remote(settings, i) for i in range(settings.num_ranks)]
        self.decoder = Decoder.options(**place(0)).remote(settings)
        self.pids: list[tuple[int, float]] = []  # with the time each was started
        self.lost = ""  # why, once it is lost

    @property
    def processes(self) -> list:
        return [*self.ranks, self.decoder]

    async def start(self) -> None:
        """Join and load.

        Raises:
            KlingError: the weights are not usable.
            GroupLostError: a process died meanwhile.
        """
        try:
            address = await self.ranks[0].address.remote()
            loads = [*(rank.load.remote(address) for rank in self.ranks), self.decoder.load.remote()]
            await asyncio.wait_for(asyncio.gather(*loads), _LOAD_TIMEOUT_S)
            self.pids = list(await asyncio.gather(*(process.ping.remote() for process in self.processes)))
        except RayTaskError as error:
            raise _cause(error) from error
        except (RayError, TimeoutError) as error:
            raise GroupLostError(str(error)) from error

    async def calibrate(self, budget_bytes: int) -> Calibration:
        """Measure what admission predicts with: seconds and bytes of this replica on this machine, as it is now."""
        *ranks, decoder = await asyncio.gather(*(process.calibrate.remote() for process in self.processes))
        preset = get_preset(self.settings.preset)
        clip, unit = preset.clip, preset.vae.stride_px * preset.dit.patch[2]
        tokens = (clip.width_px // unit) * (clip.height_px // unit) * preset.vae.latent_frames(clip.num_frames)
        pixels = (16 * preset.vae.stride_px) ** 2
        return Calibration(
            token_step_s=max(step_s for step_s, _, _ in ranks) / tokens,
            decode_px_s=decoder[0],
            base_bytes=sum(idle for _, idle, _ in (*ranks, decoder)),
            # A peak below the allocator's slack measures as nothing: never less than the activations must take.
            token_bytes=max(sum(peak for _, _, peak in ranks) / tokens, 100.0 * preset.dit.width * len(ranks)),
            decode_px_bytes=max(decoder[2] / pixels, 100.0 * preset.vae.base_dim),
            budget_bytes=budget_bytes,
        )

    async def watch(self) -> None:
        """Ping every process; on the first that does not answer, end the whole group, and return."""
        while not self.lost:
            pings = [asyncio.ensure_future(_answer(process.ping.remote())) for process in self.processes]
            done, late = await asyncio.wait(pings, timeout=_PING_TIMEOUT_S)
            if late:
                self.end("a process does not answer (frozen)")
            elif failed := [ping for ping in done if ping.exception()]:
                self.end(f"a process died ({type(failed[0].exception()).__name__})")
            for ping in late:
                ping.cancel()
            await asyncio.sleep(_PING_EVERY_S)

    def memory_bytes(self) -> int:
        """Resident memory of the group's processes; one that has just ended counts nothing."""
        total = 0
        for pid, _ in self.pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_info().rss
        return total

    def end(self, why: str) -> None:
        """Kill every process of the group; frozen ones too."""
        if self.lost:
            return
        self.lost = why
        for process in self.processes:
            with contextlib.suppress(RayError):
                ray.kill(process)
        # A stopped process does not hear Ray; our pids are of this node, since a placement group packs its replica.
        for pid, started in self.pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.create_time() == started:  # and not another that was given its number
                    process.kill()


class Engine:
    """The deployment's class. It answers no requests: its work comes from the store."""

    async def __init__(self, settings: EngineSettings):
        self._settings = settings
        self._store = TaskStore(settings.database)
        self._meter = Meter()
        self._name = f"{os.uname().nodename}-{uuid.uuid4().hex[:10]}"
        self._draining = False
        self._fatal: KlingError | None = None
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
            measured = (await asyncio.wait_for(measuring, _LOAD_TIMEOUT_S)).to_json()
        except (RayError, TimeoutError) as error:
            raise GroupLostError(str(error)) from error
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
        while not self._draining:
            if self._group.lost:
                await self._renew_group()
            if self._denoising.locked() or len(self._running) >= 2:
                await asyncio.sleep(_POLL_S / 4)
                continue
            claim = await asyncio.to_thread(self._store.claim, self._name)
            if claim is None:
                await asyncio.sleep(_POLL_S)
                continue
            await self._denoising.acquire()  # released by the task once its latents are saved
            run = asyncio.create_task(self._see_through(claim))
            name = f"{claim.id}:{claim.attempt}"
            self._running[name] = run
            run.add_done_callback(lambda done, name=name: self._running.pop(name, None))

    async def _renew_group(self) -> None:
        """A new group in the same place. Three failures in a row: the replica gives up, and Ray Serve replaces it."""
        why = self._group.lost
        log.warning("group lost", extra={"reason": why, "worker": self._name})
        self._meter.add("kling_failures", cause="group_lost")
        await self._report("loading", why)
        while self._running:  # they see the loss too, and give their tasks back
            await asyncio.wait(list(self._running.values()))
        for _ in range(3):
            self._group = Group(self._settings.ranks)
            try:
                await self._group.start()
                await self._calibrate()  # and what is loaded at first use is loaded before a task needs it
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
            await self._report("loading" if self._group.lost else "ready")
            waiting, work_s = await asyncio.to_thread(self._store.backlog)
            self._meter.set("kling_waiting_tasks", waiting)
            self._meter.set("kling_backlog_seconds", work_s)
            self._meter.set("kling_memory_bytes", self._group.memory_bytes(), worker=self._name)
            self._meter.set("kling_budget_bytes", self._settings.budget_bytes, worker=self._name)

    async def _report(self, status: str, detail: str = "") -> None:
        group = [pid for pid, _ in self._group.pids] if hasattr(self, "_group") else []
        pids = json.dumps({"leader": os.getpid(), "ranks": group[:-1], "decoder": group[-1:]})
        await asyncio.to_thread(self._store.report_worker, self._name, status=status, detail=detail, pids=pids)

    # --- one task --------------------------------------------------------------------------------------------------

    async def _see_through(self, claim: Claim) -> None:
        """From claim to end: completed, failed, cancelled, or given back."""
        group, extra = self._group, {"task": claim.id, "attempt": claim.attempt}
        keeper = asyncio.create_task(self._keep_lease(claim, group))
        started = time.monotonic()
        log.info("task started", extra=extra)
        if claim.attempt == 1:
            self._meter.observe("kling_queue_seconds", time.time() - claim.created_at)
        try:
            job = Job(task_id=claim.id, attempt=claim.attempt, order=Order.from_json(claim.order))
            made = await (self._both(claim, job, group) if job.order.chunk else self._one_by_one(claim, job, group))
            if made is None:
                await self._stopped(claim)
            else:
                await self._complete(claim, made)
                self._meter.add("kling_tasks", state="completed")
                self._meter.observe("kling_task_seconds", time.monotonic() - started)
                log.info("task completed", extra={**extra, "seconds": round(time.monotonic() - started, 3)})
        except LostLeaseError:
            log.warning("task was claimed by another worker", extra=extra)
            await self._stop(claim, group)
        except GroupLostError as error:
            log.warning("task given back", extra={**extra, "reason": str(error)})
            with contextlib.suppress(LostLeaseError):
                await asyncio.to_thread(self._store.release, claim, crashed=True)
        except Exception as error:
            # Deterministic: the same order would fail the same way again, so it is not retried.
            code = "invalid" if isinstance(error, ConfigError) else "internal"
            if not isinstance(error, KlingError):
                log.exception("task failed", extra=extra)
            message = str(error) if isinstance(error, KlingError) else "the engine failed on this task"
            self._meter.add("kling_tasks", state="failed")
            self._meter.add("kling_failures", cause=code)
            with contextlib.suppress(LostLeaseError):
                await asyncio.to_thread(self._store.fail, claim, code=code, message=message)
        finally:
            keeper.cancel()

    async def _keep_lease(self, claim: Claim, group: Group) -> None:
        """Renew the lease, and stop the processes when the owner cancels or another worker has the task."""
        while True:
            try:
                cancel = await asyncio.to_thread(self._store.renew, claim)
            except LostLeaseError:
                cancel = True
            if cancel:
                await self._stop(claim, group)
            await asyncio.sleep(min(0.25, LEASE_S / 4))

    async def _stop(self, claim: Claim, group: Group) -> None:
        for process in group.processes:
            with contextlib.suppress(RayError):
                await process.stop.remote(f"{claim.id}:{claim.attempt}")

    async def _one_by_one(self, claim: Claim, job: Job, group: Group) -> Decoded | None:
        """Latents, then frames. None: the task was stopped (cancelled, or drained and given back)."""
        if not await self._denoise(claim, job, group):
            return None
        return await self._decode(claim, job, group)

    async def _both(self, claim: Claim, job: Job, group: Group) -> Decoded | None:
        """The decoder waits for chunks while the ranks make them."""
        decoding = asyncio.create_task(self._decode(claim, job, group))
        try:
            finished = await self._denoise(claim, job, group)
        except BaseException:
            await self._stop(claim, group)  # it would wait for ever
            await asyncio.wait([decoding], timeout=_STOP_S)
            decoding.cancel()
            raise
        if not finished:
            await self._stop(claim, group)
        made = await decoding
        return made if finished else None

    async def _denoise(self, claim: Claim, job: Job, group: Group) -> bool:
        """Latents to storage. False: the task was stopped."""
        try:
            streams = [rank.make.options(num_returns="streaming").remote(job) for rank in group.ranks]
            rest = [asyncio.ensure_future(_drained(stream)) for stream in streams[1:]]
            last, told = Event(stage=""), 0.0
            try:
                async for reference in streams[0]:
                    last = await reference
                    if last.stage == "denoise":
                        self._meter.observe("kling_step_seconds", last.step_s)
                    if time.monotonic() - told > _PROGRESS_EVERY_S or last.step == last.num_steps:
                        told = time.monotonic()
                        await self._tell(claim, last.stage, last.step, last.num_steps)
                await asyncio.gather(*rest)
            except RayError as error:
                raise await self._judge(error, rest, group) from error
        finally:
            self._denoising.release()
        return last.stage != "stopped"

    async def _decode(self, claim: Claim, job: Job, group: Group) -> Decoded | None:
        """Frames and video to storage. None: the task was stopped."""
        async with self._decoding:
            last, told = None, 0.0
            try:
                async for reference in group.decoder.decode.options(num_returns="streaming").remote(job):
                    if last is None:
                        self._meter.observe("kling_ttff_seconds", time.time() - claim.created_at)
                    last = await reference
                    if time.monotonic() - told > _PROGRESS_EVERY_S and not job.order.chunk:
                        told = time.monotonic()
                        await self._tell(claim, "decode", job.order.num_steps, job.order.num_steps)
            except RayError as error:
                raise await self._judge(error, [], group) from error
        return last if last is not None and last.sha256 else None

    async def _complete(self, claim: Claim, made: Decoded) -> None:
        """The one write that completes the task; only then what an unfinished one needs is removed."""
        result = {"num_bytes": made.video_bytes, "sha256": made.sha256, "num_frames": made.num_frames}
        await asyncio.to_thread(self._store.complete, claim, {**result, "pace": list(made.pace)})
        await asyncio.to_thread(Media(self._settings.ranks.state, claim.id).tidy)

    async def _stopped(self, claim: Claim) -> None:
        """The processes stopped on our word: because of a drain, a lost lease, or the owner's cancel."""
        if self._draining or not await asyncio.to_thread(self._store.renew, claim):
            await asyncio.to_thread(self._store.release, claim, crashed=False)
            return
        await asyncio.to_thread(self._store.cancelled, claim)
        self._meter.add("kling_tasks", state="cancelled")
        await asyncio.to_thread(Media(self._settings.ranks.state, claim.id).remove)

    async def _tell(self, claim: Claim, stage: str, step: int, num_steps: int) -> None:
        await asyncio.to_thread(self._store.progress, claim, stage=stage, step=step, num_steps=num_steps)

    async def _judge(self, error: RayError, rest: Sequence[asyncio.Future], group: Group) -> Exception:
        """Was it the task's fault or the group's? A group with a failed rank is never used again."""
        if rest:
            await asyncio.wait(rest, timeout=_STOP_S)
        errors = [error, *(future.exception() for future in rest if future.done() and not future.cancelled())]
        dead = any(isinstance(e, RayActorError) for e in errors) or bool(group.lost)
        causes = [_cause(e) for e in errors if isinstance(e, RayTaskError)]
        if not dead and not rest:
            return causes[0] if causes else GroupLostError(str(error))
        ours = [cause for cause in causes if isinstance(cause, KlingError)]
        if not dead and len(ours) == len(errors):
            return ours[0]  # every rank refused the order in the same way, none is waiting for another
        # A peer that vanished shows as a transport error in the others before its own death is known.
        await asyncio.sleep(0 if dead else _PING_EVERY_S)
        transport = any("connection" in str(cause).lower() or "timed out" in str(cause).lower() for cause in causes)
        group.end(f"a rank failed ({type(error).__name__})")
        if dead or transport or not causes:
            return GroupLostError(str(error))
        return causes[0]


async def _answer(reference: ray.ObjectRef) -> object:
    return await reference


async def _drained(stream: ray.ObjectRefGenerator) -> None:
    async for reference in stream:
        await reference


def _cause(error: RayTaskError) -> Exception:
    """What was raised on the other side."""
    cause = error.cause
    return cause if isinstance(cause, Exception) else InternalError("a rank failed", where=str(error))
