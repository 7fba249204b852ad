"""The processes of one replica. Its ranks are made, watched and lost together; a lost decoder is made again alone."""

import asyncio
import contextlib
import logging
from itertools import zip_longest

import psutil
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from kling.errors import InternalError
from kling.presets import get_preset

from .admission import Calibration
from .memory import KEPT_BYTES
from .ranks import Decoder, Rank, RankSettings

log = logging.getLogger("ray.serve")  # JSON lines with what `extra` holds, beside Ray Serve's own

PING_EVERY_S = 1.0
_LOAD_TIMEOUT_S = 1800.0  # 12B parameters from a slow place
# malloc_trim returns the end of the main heap only: with a heap for each thread, tens of MiB of a task stay.
_ONE_HEAP = {"env_vars": {"MALLOC_ARENA_MAX": "1"}}


class GroupLostError(Exception):
    """A process of the group died, froze, or left the others waiting."""


class Group:
    """The processes of one replica. Without any of its ranks it is lost as a whole."""

    def __init__(self, settings: RankSettings):
        gpus = {"num_gpus": 1} if settings.device.startswith("cuda") else {}
        self.settings = settings
        self.ranks = [Rank.options(**_place(i + 1), **gpus).remote(settings, i) for i in range(settings.num_ranks)]
        self.decoder = Decoder.options(**_place(0)).remote(settings)
        self.pids: list[tuple[int, float]] = []  # of the ranks, then the decoder; with the time each was started
        self.lost = ""  # why, once it is lost
        self._mending: asyncio.Task | None = None

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
            raise cause_of(error) from error
        except (RayError, TimeoutError) as error:
            raise GroupLostError(str(error)) from error

    async def calibrate(self, budget_bytes: int) -> Calibration:
        """Measure what admission predicts with: seconds and bytes of this replica on this machine, as it is now."""
        measured = await asyncio.gather(*(process.calibrate.remote() for process in self.processes))
        *ranks, decoder = measured
        preset = get_preset(self.settings.preset)
        return Calibration(
            token_step_s=max(rank.seconds for rank in ranks),
            decode_px_s=decoder.seconds,
            base_bytes=sum(process.idle_bytes + KEPT_BYTES for process in measured),
            fixed_bytes=sum(process.fixed_bytes for process in measured),
            # A peak below the allocator's slack measures as nothing: never less than the activations must take.
            token_bytes=max(sum(rank.each_bytes for rank in ranks), 100.0 * preset.dit.width * len(ranks)),
            decode_px_bytes=max(decoder.each_bytes, 100.0 * preset.vae.base_dim),
            budget_bytes=budget_bytes,
        )

    async def watch(self) -> None:
        """Ping every process. On the first rank that does not answer end the group, and return; a decoder that does not
        answer is made anew."""
        while not self.lost:
            watched = [*self.ranks, *([] if self._is_mending else [self.decoder])]
            pings = {asyncio.ensure_future(_answer(process.ping.remote())): process for process in watched}
            done, late = await asyncio.wait(pings, timeout=self.settings.silent_s)
            why = {pings[ping]: "does not answer (frozen)" for ping in late}
            why |= {pings[ping]: f"died ({type(ping.exception()).__name__})" for ping in done if ping.exception()}
            for ping in late:
                ping.cancel()
            if any(rank in why for rank in self.ranks):
                self.end(f"a rank {next(why[rank] for rank in self.ranks if rank in why)}")
            elif why:
                self._mend(watched[-1], why[watched[-1]])
            await asyncio.sleep(PING_EVERY_S)

    async def mended(self, decoder: ActorHandle) -> None:
        """Return when there is a decoder in the place of this lost one. Ranks go on meanwhile.

        Raises:
            GroupLostError: there is none, and the group is lost with it.
        """
        self._mend(decoder, "died")
        if self._mending is not None and not self.lost:
            await asyncio.wait([self._mending])
        if self.lost:
            raise GroupLostError(self.lost)

    @property
    def _is_mending(self) -> bool:
        return self._mending is not None and not self._mending.done()

    def _mend(self, decoder: ActorHandle, why: str) -> None:
        """Begin to, unless somebody saw that loss before."""
        if self.lost or self._is_mending or self.decoder is not decoder:
            return
        log.warning("decoder lost", extra={"reason": why})
        _kill(decoder, self.pids.pop())
        self.decoder = Decoder.options(**_place(0)).remote(self.settings)
        self._mending = asyncio.create_task(self._load_decoder())

    async def _load_decoder(self) -> None:
        try:
            await asyncio.wait_for(_answer(self.decoder.load.remote()), _LOAD_TIMEOUT_S)
            self.pids.append(await self.decoder.ping.remote())
        except (RayError, TimeoutError) as error:
            self.end(f"the decoder cannot be made again ({type(error).__name__})")

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
        for process, known in zip_longest(self.processes, self.pids):
            _kill(process, known)


def _place(bundle: int) -> dict:
    """Options of an actor in a bundle of this replica's placement group."""
    placed = ray.util.get_current_placement_group()
    if placed is None:  # a replica outside Ray Serve (a test): anywhere
        return {"num_cpus": 0, "runtime_env": _ONE_HEAP}
    strategy = PlacementGroupSchedulingStrategy(placed, placement_group_bundle_index=bundle)
    return {"num_cpus": 0 if bundle == 0 else 1, "scheduling_strategy": strategy, "runtime_env": _ONE_HEAP}


def _kill(process: ActorHandle, known: tuple[int, float] | None) -> None:
    """A stopped process does not hear Ray; our pids are of this node, since a placement group packs its replica."""
    with contextlib.suppress(RayError):
        ray.kill(process)
    if known is None:
        return
    pid, started = known
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(pid)
        if found.create_time() == started:  # and not another that was given its number
            found.kill()


async def _answer(reference: ray.ObjectRef) -> object:
    return await reference


def cause_of(error: RayTaskError) -> Exception:
    """What was raised on the other side."""
    cause = error.cause
    return cause if isinstance(cause, Exception) else InternalError("a rank failed", where=str(error))
