"""`python -m data select DATASET --where EXPRESSION --out SELECTION`: thresholds, applied to stored scores.

Nothing is computed again and no row is copied: a selection is a manifest that names rows of shards. It is
read like a data set, by training too.
"""

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import tyro
from rich.console import Console

from kling import shards, storage
from kling.errors import ConfigError, InputError

_NUMBERS = {"start_s", "end_s", "width_px", "height_px", "num_frames", "fps"}
_WORDS = {"split", "bucket", "source"}
_COLUMNS = [*sorted(_NUMBERS | _WORDS), "scores", "duplicate_of"]
_COMPARE: dict[type[ast.cmpop], Callable] = {
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip

Value = float | str
Row = dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Select:
    """Choose clips of a curated data set by their stored scores; what is written can be trained on."""

    dataset: tyro.conf.Positional[str]
    """Where `curate` put it (local or s3://)."""
    where: str
    """E.g. "sharpness > 0.4 and drift_p >= 0.05 and not duplicate": any score, duplicate (1 or 0), start_s, end_s,
    width_px, height_px, fps, num_frames, and split, bucket, source as words in quotes."""
    out: str
    """Folder of the selection."""


def command(arguments: list[str]) -> int:
    """`python -m data select`."""
    options = tyro.cli(Select, args=arguments, prog="python -m data select")
    chosen, total = select(options.dataset, options.where, options.out)
    Console().print(f"{chosen} of {total} clips\n  {storage.join(options.out, shards.MANIFEST)}", highlight=False)
    return 0


def select(dataset: str, where: str, out: str) -> tuple[int, int]:
    """Write the selection's manifest; returns how many rows are in it, and of how many.

    A row that lacks a named score (a codec without motion vectors has no ``coded_motion``) is not chosen.

    Raises:
        ConfigError: the expression cannot be read, or names what no row has; or ``out`` is the data set itself.
        InputError: not a finished data set, or no clip fulfils it.
    """
    if storage.absolute(out) == storage.absolute(dataset):
        raise ConfigError("a selection is written beside its data set", where=out, fix="Choose another --out")
    manifest, wanted = shards.read_manifest(dataset), parse(where)
    kept, total, known = [], 0, set[str]()
    for shard in manifest.shards:
        rows = [_values(row) for row in shards.read_rows(dataset, shard, _COLUMNS)]
        total += len(rows)
        known |= {name for row in rows for name in row}
        numbers = shard.rows if shard.rows is not None else range(len(rows))
        chosen = tuple(number for number, row in zip(numbers, rows, strict=True) if wanted(row))
        if chosen:
            base = shard.dataset or storage.absolute(dataset)
            path = storage.join(base, shard.path)
            kept.append(replace(shard, dataset=base, path=path, rows=chosen, num_rows=len(chosen)))
    if unknown := wanted.names - known:
        raise ConfigError(
            f"no clip has {', '.join(sorted(unknown))}", where=where, fix=f"There are: {', '.join(sorted(known))}"
        )
    count = sum(shard.num_rows for shard in kept)
    if not count:
        raise InputError(f"none of {total} clips fulfils it", where=where, fix="Relax it; see `data report` for scores")
    counts = manifest.counts | {"rows": count}
    condition = f"({manifest.where}) and ({where})" if manifest.where else where
    shards.write_manifest(out, replace(manifest, counts=counts, shards=tuple(kept), where=condition))
    return count, total


class Condition:
    """A parsed expression: call it with a row's values."""

    def __init__(self, tree: ast.expr, text: str):
        self._tree, self._text = tree, text
        self.names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    def __call__(self, row: Row) -> bool:
        return self.names <= row.keys() and bool(self._value(self._tree, row))

    def _value(self, node: ast.expr, row: Row) -> Value:
        match node:
            case ast.Name(id=name):
                return row[name]
            case ast.Constant(value=value):
                return value  # type: ignore[return-value] - parse() lets only numbers and words through
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -float(self._value(inner, row))
            case ast.UnaryOp(operand=inner):
                return not self._value(inner, row)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._value(value, row) for value in values)
            case ast.BoolOp(values=values):
                return any(self._value(value, row) for value in values)
            case ast.Compare(left=left, ops=ops, comparators=others):
                values = [self._value(value, row) for value in (left, *others)]
                steps = zip(ops, values, values[1:], strict=False)
                try:
                    return all(_COMPARE[type(op)](a, b) for op, a, b in steps)
                except TypeError:
                    raise ConfigError("a number is compared with a word", where=self._text) from None
        raise AssertionError(node)  # parse() lets nothing else through


def parse(text: str) -> Condition:
    """Comparisons of names, numbers and words joined by and, or, not. Nothing is executed.

    Raises:
        ConfigError: anything else is in it.
    """
    fix = 'Write comparisons joined by and, or, not: "sharpness > 0.4 and not duplicate"'
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError("the condition cannot be read", where=text[:200], fix=fix) from None
    for node in ast.walk(tree):
        good = isinstance(node, ast.BoolOp | ast.boolop | ast.Compare | ast.Name | ast.Load | ast.Not | ast.USub)
        good |= isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub)
        good |= isinstance(node, ast.cmpop) and type(node) in _COMPARE
        good |= isinstance(node, ast.Constant) and isinstance(node.value, int | float | str)
        if not good:
            raise ConfigError(f"{type(node).__name__} is not allowed in a condition", where=text[:200], fix=fix)
    return Condition(tree, text)


def _values(row: dict) -> Row:
    plain = {name: row[name] for name in _NUMBERS | _WORDS}
    return plain | dict(row["scores"]) | {"duplicate": float(row["duplicate_of"] is not None)}
