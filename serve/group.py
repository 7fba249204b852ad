"""The processes of one replica: made, watched and lost together."""

import asyncio
import contextlib

import psutil
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from kling.errors import InternalError
from kling.presets import get_preset

from .admission import Calibration
from .ranks import Decoder, Rank, RankSettings

# On an overloaded machine a healthy process was seen silent for more than 5 s.
PING_EVERY_S, _PING_TIMEOUT_S = 1.0, 20.0
_LOAD_TIMEOUT_S = 1800.0  # 12B parameters from a slow place


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
            base_bytes=sum(process.idle_bytes for process in measured),
            fixed_bytes=sum(process.fixed_bytes for process in measured),
            # A peak below the allocator's slack measures as nothing: never less than the activations must take.
            token_bytes=max(sum(rank.each_bytes for rank in ranks), 100.0 * preset.dit.width * len(ranks)),
            decode_px_bytes=max(decoder.each_bytes, 100.0 * preset.vae.base_dim),
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
            await asyncio.sleep(PING_EVERY_S)

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


async def _answer(reference: ray.ObjectRef) -> object:
    return await reference


def cause_of(error: RayTaskError) -> Exception:
    """What was raised on the other side."""
    cause = error.cause
    return cause if isinstance(cause, Exception) else InternalError("a rank failed", where=str(error))
