"""`python -m data bench-prompts`: the fixed prompts of `kling bench`, and the clips that show them.

    python -m data bench-prompts --out kling/bench/prompts.json           # choose them again: the same 200
    python -m data bench-prompts --render out/bench                       # render the clips of the chosen ones

Drawn from the benchmark split, whose seeds no training sees. Half show a combination of colour, shape and action that
training never shows. Among many candidates those are taken that even out actions, camera moves and numbers of objects.
"""

import io
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.progress import track

from data.playground import splits
from data.playground.captions import captions
from data.playground.sample import sample
from kling import storage
from kling.errors import InternalError
from kling.prompt.graph import SceneGraph

_SHARES = {"1": 0.28, "2-3": 0.34, "4-6": 0.24, "7+": 0.14}  # of the prompts, by number of objects
_JAPANESE = 10  # every so manieth prompt is in Japanese
_PACKAGED = str(Path(__file__).parents[2] / "kling" / "bench" / "prompts.json")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choose the benchmark's prompts, or render the clips that show them."""

    out: str = ""  # write the chosen prompts here
    render: str = ""  # folder for the clips of --prompts
    prompts: str = _PACKAGED  # the list whose clips are rendered
    num_prompts: int = 200
    candidates: int = 6000  # seeds that are looked at
    seed: int = 0  # number of the first seed within the benchmark split


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    options = tyro.cli(Options, args=arguments, prog="python -m data bench-prompts", description=Options.__doc__)
    if options.out:
        rows = choose(options)
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        storage.write_bytes(options.out, f"[\n{lines}\n]\n".encode())
        print(f"{len(rows)} prompts: {options.out}")
    if options.render:
        print(f"{render(options)} clips rendered: {options.render}")
    return 0


def bucket(num_objects: int) -> str:
    return "1" if num_objects == 1 else "2-3" if num_objects <= 3 else "4-6" if num_objects <= 6 else "7+"


def choose(options: Options) -> list[dict]:
    """One row a prompt: id, prompt, language, seed of the clip, seed of its plan, held_out, graph."""
    first = splits.seed_of("bench", options.seed)
    pool = {seed: sample(seed) for seed in range(first, first + options.candidates)}
    half = options.num_prompts // 2
    rows = []
    for held_out in (False, True):
        left = {seed: graph for seed, graph in pool.items() if splits.shows_held_out(graph) == held_out}
        for name, share in _SHARES.items():
            fitting = {seed: graph for seed, graph in left.items() if bucket(len(graph.objects)) == name}
            rows += [_row(seed, graph, held_out) for seed, graph in _even(fitting, round(half * share))]
    for n, row in enumerate(rows):
        language = "ja" if n % _JAPANESE == _JAPANESE - 1 else "en"
        said = [c for c in captions(SceneGraph.from_json(row["graph"]), seed=row["seed"], split="bench")]
        row.update(id=f"p{n + 1:03d}", language=language, prompt=next(c.text for c in said if c.language == language))
    order = ("id", "prompt", "language", "seed", "plan_seed", "held_out", "graph")
    return [{key: row[key] for key in order} for row in rows]


def _even(pool: dict[int, SceneGraph], number: int) -> list[tuple[int, SceneGraph]]:
    """Take, one by one, the graph whose actions and camera are rarest among those taken, if it can be staged."""
    from data.playground.clip import Format, stage

    taken: list[tuple[int, SceneGraph]] = []
    seen: Counter[str] = Counter()
    left = dict(pool)
    while len(taken) < number:
        if not left:
            raise InternalError("too few candidates for the wanted mix", fix="Raise --candidates")
        seed = min(left, key=lambda s: (float(np.mean([seen[t] for t in _traits(left[s])])), s))
        graph = left.pop(seed)
        staged, _, _ = stage(seed, Format())
        if staged != graph:  # the first draw could not be staged: the clip would show another graph
            continue
        taken.append((seed, graph))
        seen.update(_traits(graph))
    return taken


def _traits(graph: SceneGraph) -> list[str]:
    actions = sorted({event.action for event in graph.events})
    camera = [f"camera {move.kind} {move.direction}" for move in graph.camera] or ["camera unsaid"]
    return actions + camera


def _row(seed: int, graph: SceneGraph, held_out: bool) -> dict:
    from data.playground.clip import PLAN_SEEDS

    raw = {key: value for key, value in asdict(graph).items() if value}
    return {"seed": seed, "plan_seed": seed * PLAN_SEEDS, "held_out": held_out, "graph": raw}


def render(options: Options) -> int:
    """Clips and sidecars of the listed prompts, named by their ids; those that are there are kept."""
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # before anything imports MuJoCo
    from data.playground.clip import Format, make
    from kling.media.video import write_mp4

    rows = json.loads(storage.read_bytes(options.prompts))
    done = 0
    for row in track(rows, description="rendering", disable=not sys.stderr.isatty()):
        target = storage.join(options.render, f"{row['id']}.json")
        if storage.exists(target):
            continue
        frames, sidecar = make(row["seed"], Format())
        sidecar = sidecar.model_copy(update={"clip": f"{row['id']}.mp4"})
        video = io.BytesIO()
        write_mp4(video, frames, fps=sidecar.fps)
        storage.write_bytes(storage.join(options.render, sidecar.clip), video.getvalue())
        storage.write_bytes(target, sidecar.model_dump_json().encode())
        done += 1
    return done
