"""The recipe of curation: read > shots > letterbox > clips > score > label > caption > encode > commit > shard.

Ray Data moves units of clips (data/work.py) through the stages (data/stages, numbered). A stage that raises marks the
clip, not the block: no error of one file touches another; a file on which workers die is set aside (data/tries.py).
What is committed is never done again.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import ray
import ray.data as ray_data

from data.stages.s1_list import list_sources
from data.stages.s2_read import Reader
from data.stages.s3_truth import take_truth
from data.stages.s4_score import score_clip
from data.stages.s5_ask import Captioner
from data.stages.s5_caption import caption_clip
from data.stages.s5_label import label_clip
from data.stages.s7_commit import commit_unit, finished_sources, note_run
from data.stages.s8_shard import write_shards
from data.stages.sandbox import Limits
from data.tries import Tries
from data.work import Clip, Options, Outcome, Recipe, Source, Unit
from kling import shards, storage
from kling.errors import ConfigError, KlingError, ServiceError
from kling.presets import Preset

_MAX_BLOCKS = 256  # blocks cost the scheduler time; up to so many files, each is a block of its own


@dataclass(frozen=True, kw_only=True)
class Job:
    """One curation run."""

    preset: Preset
    inputs: tuple[str, ...]
    dataset: str  # where the result goes
    weights: str | None  # None: rows without latents and text states
    encoder: str = ""  # digest of those weights
    options: Options = field(default_factory=Options)
    captioner: Captioner | None = None  # None: captions are templates made of what was measured
    num_workers: int | None = None  # None: one a core of the cluster
    gpus_per_encoder: float = 0.0
    limits: Limits = field(default_factory=Limits)

    @property
    def recipe(self) -> Recipe:
        return Recipe(preset=self.preset.name, spec=self.preset.clip, encoder=self.encoder, options=self.options)


def curate(
    job: Job, on_progress: Callable[[int, int], None], connect: Callable[[], None] = lambda: None
) -> shards.Manifest:
    """Run the recipe; returns the manifest of the finished data set.

    Args:
        on_progress: called with (sources finished, sources in all) whenever a unit is committed.
        connect: called before the cluster is needed; what is wrong with the input is told before, and at once.

    Raises:
        InputError: nothing to curate.
        StorageError: input unreachable or output not writable.
        ConfigError: the output holds a data set of another recipe.
        InternalError: counts do not add up.
    """
    sources = list_sources(job.inputs)
    _same_recipe(job.dataset, job.recipe)
    finished = finished_sources(job.dataset, sources)
    todo = [source for source in sources if source.name not in finished]
    done = len(finished)
    on_progress(done, len(sources))
    started = time.perf_counter()
    if todo:
        connect()
        for row in _rows(flow(job, todo, Tries())):
            done += row["finished"]
            on_progress(done, len(sources))
    manifest = write_shards(job.dataset, sources, job.recipe)
    if todo:
        note_run(job.dataset, num_files=len(todo), seconds=time.perf_counter() - started)
    return manifest


def flow(job: Job, sources: list[Source], tries: Tries) -> ray_data.Dataset:
    """The stages, each with what it needs; the shares leave every stage a place on two cores."""
    items = ray_data.from_items(
        [{"source": source} for source in sources], override_num_blocks=min(len(sources), _MAX_BLOCKS)
    )
    num_workers = job.num_workers or int(ray.cluster_resources().get("CPU", 2))
    # 1-2. Read, find shots and letterbox bars, cut clips, decode. An actor, because it owns a decoder process; half a
    # core, because that process does the work and the actor waits. One reads ten times as fast as one measures.
    readers = ray_data.ActorPoolStrategy(size=max(1, num_workers // 2))
    units = items.flat_map(_Read, fn_constructor_args=(job, tries), compute=readers, num_cpus=0.5)
    # 3-5. Ground truth, scores, overlay text, labels, captions. Without state: Ray joins it to the next stage, where
    # that has no GPU.
    units = units.map(partial(_measure, job=job, tries=tries), num_cpus=0.5)
    # 6-7. Encode and commit. An actor, because the networks are loaded once; committing is mostly waiting for storage.
    finish: Any = _Finish  # Ray takes classes too
    gpus = job.gpus_per_encoder
    size = int(ray.cluster_resources().get("GPU", 0) / gpus) if gpus else num_workers
    encoders = ray_data.ActorPoolStrategy(size=max(1, size))
    return units.map(finish, fn_constructor_args=(job, tries), compute=encoders, num_cpus=0.5, num_gpus=gpus or None)


class _Read:
    def __init__(self, job: Job, tries: Tries):
        self._reader, self._tries = Reader(job.preset.clip, job.limits, job.options), tries

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        source: Source = row["source"]
        deadly = self._tries.begin("read", source.name)
        for unit in self._reader(source) if deadly is None else [_set_aside(source, deadly)]:
            yield {"unit": unit, "fatal": None}
        self._tries.end("read", source.name)


def _measure(row: dict[str, Any], job: Job, tries: Tries) -> dict[str, Any]:
    unit: Unit = row["unit"]
    if not unit.clips:  # nothing to die on: of 100,000 bad files none asks the counter again
        return {"unit": unit, "fatal": None}
    deadly = tries.begin("score", unit.source.name, unit.index)
    try:
        if deadly is not None:
            return {"unit": _fail(unit, deadly), "fatal": None}
        unit = _whole(unit, "truth", lambda unit: take_truth(unit, job.preset.clip))
        unit = _each(unit, "score", lambda clip: score_clip(clip, job.options))
        unit = _each(unit, "label", lambda clip: label_clip(clip, job.preset.clip))
        unit = _each(unit, "caption", lambda clip: caption_clip(clip, job.captioner, job.options))
    except KlingError as error:  # Ray would lose what it is on the way: it travels as a row, and ends the run
        return {"unit": unit, "fatal": error}
    finally:
        tries.end("score", unit.source.name, unit.index)
    for clip in unit.clips:
        clip.still = clip.flow = None  # they have been seen
    return {"unit": unit, "fatal": None}


class _Finish:
    def __init__(self, job: Job, tries: Tries):
        self._job, self._tries, self._encoder = job, tries, None
        if job.weights is not None:
            from data.stages.s6_encode import Encoder  # torch is loaded by those who need it

            self._encoder = Encoder(job.preset, job.weights)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        unit: Unit = row["unit"]
        if row["fatal"] is not None:
            return {"finished": 0, "fatal": row["fatal"]}
        deadly = self._tries.begin("encode", unit.source.name, unit.index) if unit.clips else None
        try:
            if deadly is not None:
                unit = _fail(unit, deadly)
            elif unit.clips and self._encoder is not None:
                unit = _whole(unit, "encode", self._encoder)
            commit_unit(unit, self._job.dataset, self._job.recipe)
        except KlingError as error:  # as above
            return {"finished": 0, "fatal": error}
        finally:
            if unit.clips:
                self._tries.end("encode", unit.source.name, unit.index)
        return {"finished": int(unit.outcome is not None), "fatal": None}


def _set_aside(source: Source, deadly: str) -> Unit:
    """A source that no worker can read: failed, with the stage and the reason."""
    stage, _, reason = deadly.partition(": ")
    outcome = Outcome(source=source.name, fingerprint=source.fingerprint, state="failed", stage=stage, reason=reason)
    return Unit(source=source, index=0, clips=[], outcome=outcome)


def _fail(unit: Unit, reason: str) -> Unit:
    for clip in unit.clips:
        clip.failed = clip.failed or reason
    return unit


def _each(unit: Unit, stage: str, work: Callable[[Clip], None]) -> Unit:
    """Apply a stage to each clip that has not failed; an error fails that clip alone."""
    started = time.perf_counter()
    for clip in unit.clips:
        if clip.failed is None:
            try:
                work(clip)
            except (ConfigError, ServiceError):  # of the set-up, not of the clip
                raise
            except Exception as error:  # noqa: BLE001 - the ledger names it; the run goes on
                clip.failed = f"{stage}: {type(error).__name__}: {error}"
    unit.seconds[stage] = time.perf_counter() - started
    return unit


def _whole(unit: Unit, stage: str, work: Callable[[Unit], Unit]) -> Unit:
    """Apply a stage to a unit; an error of the material fails its clips, an error of the set-up ends the run."""
    started = time.perf_counter()
    try:
        unit = work(unit)
    except (KlingError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - as above
        for clip in unit.clips:
            clip.failed = clip.failed or f"{stage}: {type(error).__name__}: {error}"
    unit.seconds[stage] = time.perf_counter() - started
    return unit


def _rows(dataset: ray_data.Dataset) -> Iterator[dict[str, Any]]:
    """The last stage's rows; an error that ends the run is raised here as it was raised there."""
    for row in dataset.iter_rows():
        if row["fatal"] is not None:
            raise row["fatal"]
        yield row


def _same_recipe(dataset: str, recipe: Recipe) -> None:
    """Rows of two recipes never mix."""
    where = storage.join(dataset, "work", "recipe.json")
    text = json.dumps(asdict(recipe), indent=1, sort_keys=True)
    if not storage.exists(where):
        storage.write_bytes(where, text.encode())
    elif storage.read_bytes(where).decode() != text:
        raise ConfigError(
            "this folder holds a data set of another preset, other weights or another version",
            where=dataset,
            fix="Choose another --out",
        )
