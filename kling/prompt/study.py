"""How much each of the four levels adds: exact match of graphs with every level switched off in turn.

    python -m kling.prompt.study handwritten=PROMPTS.jsonl grammar=MORE.jsonl [--out docs/benchmarks/prompt.md]

A prompt file has one JSON object a line: prompt, language, graph, and optionally split ("dev" rows are reported apart).
"""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kling.errors import ConfigError, InputError, run_command
from kling.prompt.graph import SceneGraph
from kling.prompt.understand import LEVELS, understand


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt and what it means. ``set``: which table row it counts for."""

    set: str
    language: str
    prompt: str
    graph: SceneGraph


@dataclass(frozen=True, kw_only=True)
class Score:
    """Graphs found exactly, of how many."""

    found: int
    total: int

    @property
    def share(self) -> float:
        return self.found / self.total if self.total else 0.0

    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson 1927)."""
        if not self.total:
            return 0.0, 0.0
        z, n, p = 1.96, self.total, self.share
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return middle - half, middle + half


def read(name: str, path: Path) -> list[Example]:
    """The examples of a prompt file.

    Raises:
        InputError: the file is missing or not of this form.
    """
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return [
            Example(
                set=f"{name}, {row['split']}" if row.get("split") else name,
                language=row["language"],
                prompt=row["prompt"],
                graph=SceneGraph.from_json(row["graph"]),
            )
            for row in rows
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError("cannot read the prompts", where=str(path), fix="One JSON object a line") from error


def score(examples: Iterable[Example], *, skip: tuple[str, ...] = ()) -> Score:
    """Exact match (kling.prompt.graph.SceneGraph.matches) over the examples."""
    found = total = 0
    for example in examples:
        total += 1
        found += understand(example.prompt, language=example.language, skip=skip).graph.matches(example.graph)
    return Score(found=found, total=total)


def table(examples: list[Example]) -> str:
    """Markdown: one row a set and language, one column a level switched off."""
    lines = [
        "| prompts | n | all four levels (95 % interval) | "
        + " | ".join(f"without {level}" for level in LEVELS)
        + " |",
        "|---|---|---|" + "---|" * len(LEVELS),
    ]
    for key in dict.fromkeys((e.set, e.language) for e in examples):
        rows = [e for e in examples if (e.set, e.language) == key]
        whole = score(rows)
        low, high = whole.interval()
        cells = [f"{100 * score(rows, skip=(level,)).share:.1f} %" for level in LEVELS]
        found = f"**{100 * whole.share:.1f} %** ({100 * low:.0f} to {100 * high:.0f})"
        lines.append(f"| {' | '.join([', '.join(key), str(whole.total), found, *cells])} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command line.

    Raises:
        ConfigError: no prompt file, or an argument that is none.
    """
    out = None
    if "--out" in arguments:
        at = arguments.index("--out")
        if at + 1 >= len(arguments):
            raise ConfigError("--out needs a file", where="--out", fix="Give a path after it")
        out = Path(arguments[at + 1])
        arguments = arguments[:at] + arguments[at + 2 :]
    examples: list[Example] = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals:
            raise ConfigError("not a prompt file", where=argument, fix="Write NAME=FILE.jsonl")
        examples.extend(read(name, Path(path)))
    if not examples:
        raise ConfigError("no prompts", where="arguments", fix="Give at least one NAME=FILE.jsonl")
    made = table(examples)
    print(made)
    if out is not None:
        start, end = "<!-- table: begin -->", "<!-- table: end -->"
        page = out.read_text() if out.exists() else f"{start}\n{end}\n"
        before, _, rest = page.partition(start)
        out.write_text(f"{before}{start}\n{made}\n{end}{rest.partition(end)[2]}")
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
