"""Step 8: shard. Committed units become shards in the order of the sources' names; the manifest comes last.

The result depends on the sources and the recipe alone, not on which worker did what or how often the run was killed. A
shard's name carries its digest: readers of the old manifest keep their files until the new one is in place.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from data.duplicates import Looks
from data.ledger import checked_counts, write_ledger
from data.stages.s7_commit import parquet_bytes, read_outcome, read_unit
from data.work import Outcome, Recipe, Source
from kling import shards, storage
from kling.errors import InternalError

_ROWS_A_SHARD = 512
_BYTES_A_SHARD = 256 * 2**20


class _Writer:
    """Collects the rows of one split and bucket, and writes a shard whenever it is full."""

    def __init__(self, dataset: str, split: str, bucket: str):
        self._dataset, self._split, self._bucket = dataset, split, bucket
        self._tables: list[pa.Table] = []
        self._num_rows, self._num_bytes = 0, 0
        self.written: list[shards.Shard] = []

    def add(self, row: pa.Table) -> None:
        self._tables.append(row)
        self._num_rows += row.num_rows
        self._num_bytes += row.nbytes
        if self._num_rows >= _ROWS_A_SHARD or self._num_bytes >= _BYTES_A_SHARD:
            self.flush()

    def flush(self) -> None:
        if not self._tables:
            return
        data = parquet_bytes(pa.concat_tables(self._tables).combine_chunks())
        digest = hashlib.sha256(data).hexdigest()
        path = f"shards/{self._split}/{self._bucket}/part-{len(self.written):05d}-{digest[:8]}.parquet"
        where = storage.join(self._dataset, path)
        if not storage.exists(where):
            storage.write_bytes(where, data)
        self.written.append(
            shards.Shard(
                path=path, split=self._split, bucket=self._bucket, num_rows=self._num_rows, num_bytes=len(data),
                sha256=digest,
            )
        )  # fmt: skip
        self._tables, self._num_rows, self._num_bytes = [], 0, 0


def write_shards(dataset: str, sources: list[Source], recipe: Recipe) -> shards.Manifest:
    """Assemble the data set from what is committed.

    Raises:
        InternalError: counts do not add up; nothing is announced as finished then.
        StorageError: the output cannot be written.
    """
    writers: dict[tuple[str, str], _Writer] = {}
    outcomes, num_rows = [], 0
    index = Looks()
    for source in sources:
        outcome = read_outcome(dataset, source)
        rows_of_source, failed = 0, {}
        for number in range(outcome.num_units):
            unit = read_unit(dataset, source, number)
            failed |= unit.failed
            rows_of_source += unit.rows.num_rows
            for row in _rows(unit.rows):
                key = (row["split"][0].as_py(), row["bucket"][0].as_py())
                original = index.add(row["clip_id"][0].as_py(), row["look"][0].as_py())
                at = row.schema.get_field_index("duplicate_of")
                row = row.set_column(at, row.schema.field(at), pa.array([original], pa.string()))
                writers.setdefault(key, _Writer(dataset, *key)).add(row)
        num_rows += rows_of_source
        outcomes.append(_settled(outcome, rows_of_source, failed))
    counts = checked_counts(sources, outcomes, num_rows)
    for key in sorted(writers):
        writers[key].flush()
    written = tuple(shard for key in sorted(writers) for shard in writers[key].written)
    if sum(shard.num_rows for shard in written) != counts["rows"]:
        raise InternalError("rows were lost on the way to the shards", where=dataset, fix="Please report this")
    write_ledger(dataset, outcomes)
    manifest = shards.Manifest(preset=recipe.preset, encoder=recipe.encoder, counts=counts, shards=written)
    shards.write_manifest(dataset, manifest)
    _drop_old(dataset, {shard.path for shard in written})
    return manifest


def _rows(table: pa.Table) -> Iterator[pa.Table]:
    for i in range(table.num_rows):
        yield table.slice(i, 1)


def _settled(outcome: Outcome, num_rows: int, failed: dict[str, str]) -> Outcome:
    """The outcome with its clips' fate: a source all of whose clips failed has failed."""
    outcome = replace(outcome, num_rows=num_rows, num_failed_clips=len(failed))
    if not failed:
        return outcome
    stage, _, error = next(iter(failed.values())).partition(": ")
    if num_rows == 0:
        return replace(outcome, state="failed", stage=stage, reason=f"all {len(failed)} clips failed: {error}")
    return replace(outcome, warnings=(*outcome.warnings, f"{len(failed)} clips failed; the first in {stage}: {error}"))


def _drop_old(dataset: str, keep: set[str]) -> None:
    """Remove shards that no manifest names any more, and halves of files that a killed run left behind."""
    root = storage.join(dataset, "shards")
    old = storage.list_files(root) if storage.exists(root) else []
    doomed = [uri for uri in old if not any(uri.endswith(path) for path in keep)]
    if storage.is_local(dataset):  # object stores have no halves
        doomed += [uri for uri in storage.list_files(dataset) if uri.endswith(".part")]
    for uri in doomed:
        fs, path = storage.resolve(uri)
        if fs.exists(path):
            fs.rm_file(path)
