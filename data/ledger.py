"""The ledger: what became of every source file. The sums must hold, or the run fails.

files = done + filtered + failed;  for each file: planned clips = rows + failed clips.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from data.work import Outcome, Source
from kling import storage
from kling.errors import InputError, InternalError

LEDGER = "ledger/sources.jsonl"


def write_ledger(dataset: str, outcomes: Iterable[Outcome]) -> None:
    """One JSON line a source file, in order of name; working times are left out (they differ from run to run)."""
    lines = []
    for outcome in outcomes:
        row = asdict(outcome)
        del row["seconds"]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    storage.write_bytes(storage.join(dataset, LEDGER), "".join(lines).encode())


def read_ledger(dataset: str) -> list[Outcome]:
    """Raises InputError when the data set has none, or it cannot be read."""
    where = storage.join(dataset, LEDGER)
    try:
        rows = [json.loads(line) for line in storage.read_bytes(where).decode().splitlines()]
        return [Outcome(**row | {"warnings": tuple(row["warnings"])}) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the ledger cannot be read ({error})", where=where, fix="Curate again") from error


def checked_counts(sources: list[Source], outcomes: list[Outcome], num_rows: int) -> dict[str, int]:
    """The counts of the manifest.

    Raises:
        InternalError: a source without an outcome, one with two, or clips that are nowhere.
    """
    names, told = Counter(s.name for s in sources), Counter(o.source for o in outcomes)
    if names != told:
        odd = sorted((names - told) | (told - names))[:3]
        raise InternalError("the ledger does not name each source once", where=", ".join(odd), fix="Please report this")
    for outcome in outcomes:
        if outcome.num_clips != outcome.num_rows + outcome.num_failed_clips:
            found = f"{outcome.num_rows} written, {outcome.num_failed_clips} failed"
            raise InternalError(
                f"{outcome.num_clips} clips were planned, {found}",
                where=outcome.source,
                fix="Please report this",
            )
    states = Counter(outcome.state for outcome in outcomes)
    counts = {
        "files": len(sources),
        **{state: states[state] for state in ("done", "filtered", "failed")},
        "shots": sum(outcome.num_shots for outcome in outcomes),
        "clips": sum(outcome.num_clips for outcome in outcomes),
        "rows": sum(outcome.num_rows for outcome in outcomes),
        "failed_clips": sum(outcome.num_failed_clips for outcome in outcomes),
    }
    if counts["files"] != counts["done"] + counts["filtered"] + counts["failed"] or counts["rows"] != num_rows:
        raise InternalError("the counts do not add up", where=str(counts | {"written": num_rows}))
    return counts
