"""`kling bench`: the fixed prompts through this library or any service, judged from pixels, beside their ceilings.

python -m data bench-prompts --render out/bench/truth       # once: the clips that show the prompts
kling bench --truth out/bench/truth --out out/bench --steps 4,30
"""

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kling.bench import contestants, prompts, report
from kling.bench.contestants import Contestant
from kling.bench.evaluate import evaluate
from kling.errors import ConfigError
from kling.media.video import read_frames, write_mp4


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Make the benchmark's clips, judge them from their pixels, and write report.html and report.json.

    A run that was stopped goes on where it was: clips that are there are judged, not made again.
    """

    out: str = "out/bench"  # folder for clips, report.html and report.json
    truth: str = ""  # folder of the prompts' own clips (python -m data bench-prompts --render DIR): gives the ceilings
    services: tuple[str, ...] = ()  # NAME=URL of services to ask instead of this library; key: $KLING_API_KEY
    folders: tuple[str, ...] = ()  # NAME=DIR of clips made elsewhere, named p001.mp4, ...
    preset: str = "tiny"
    weights: str | None = None  # URI of a weights folder; default: the packaged ones
    steps: str = "30"  # one or several: 4,30
    mode: Literal["plan", "text", "both"] = "both"  # with the scene plan, from text alone
    prompts: str = prompts.PACKAGED
    num_prompts: int = 0  # evenly spread; 0: all
    ceilings_only: bool = False  # only ground truth and VAE: no generation
    sheet: str = ""  # also write a contact sheet of 24 random clips beside ground truth to this PNG file
    seed: int = 0  # of the sheet's choice


def command(arguments: list[str]) -> int:
    """The subcommand's body."""
    asked = tyro.cli(Bench, args=arguments, prog="kling bench", description=Bench.__doc__)
    run(asked, shlex.join(["kling", "bench", *arguments]))
    return 0


def run(asked: Bench, line: str = "kling bench") -> Path:
    """Make, judge, report; returns the report's path.

    Raises:
        ConfigError: nothing to compare, impossible options.
        ServiceError, CheckpointError, InputError: a service, weights or clips that are not there.
    """
    chosen = prompts.load(asked.prompts, asked.num_prompts)
    everyone = _contestants(asked)
    results = {one.name: judged(one, chosen, Path(asked.out)) for one in everyone}
    machine = f"{os.cpu_count()} CPUs, {sys.platform}"
    made = report.build(everyone, chosen, results, command=line, machine=machine)
    path = report.write(Path(asked.out), made, chosen, results)
    if asked.sheet:
        from kling.bench.sheet import write_sheet

        write_sheet(Path(asked.sheet), Path(asked.out), chosen, list(results), seed=asked.seed)
    print(path)
    return path


def _contestants(asked: Bench) -> list[Contestant]:
    truth = contestants.folder(contestants.TRUTH, asked.truth) if asked.truth else None
    found = [truth] if truth else []
    for text in asked.folders:
        name, _, where = text.partition("=")
        if not where:
            raise ConfigError("a folder is NAME=DIR", where=text)
        found.append(contestants.folder(name, where))
    try:
        steps = [int(part) for part in asked.steps.split(",")]
    except ValueError:
        raise ConfigError("steps are whole numbers", where=f"--steps {asked.steps}", fix="Like 4,30") from None
    plans = {"plan": [True], "text": [False], "both": [True, False]}[asked.mode]
    ways = [{"steps": n, "plan": plan} for plan in plans for n in steps]
    for text in asked.services:
        name, url = contestants.parse_service(text)
        key = os.environ.get("KLING_API_KEY", "")
        if not key:
            raise ConfigError("no API key for the service", where="KLING_API_KEY", fix="Set KLING_API_KEY")
        found += [contestants.service(name, url, key, **way) for way in ways]
    if truth and not (asked.services or asked.folders):
        from kling.bench.reconstruct import load_vae
        from kling.pipeline import PACKAGED_WEIGHTS

        weights = asked.weights or str(PACKAGED_WEIGHTS / asked.preset)
        found.append(contestants.reconstruction(load_vae(weights), truth))
    if not (asked.services or asked.folders or asked.ceilings_only):
        from kling.pipeline import build

        pipeline = build(asked.preset, weights=asked.weights)
        found += [contestants.local(pipeline, **way) for way in ways]
    if not found:
        raise ConfigError("nothing to judge", where="--ceilings-only", fix="Give --truth DIR")
    return found


def judged(one: Contestant, chosen: list[prompts.BenchPrompt], out: Path) -> list[dict]:
    """One row a prompt, from its clip's pixels; clips and rows are kept in OUT/clips/NAME."""
    where = out / "clips" / report.slug(one.name)
    where.mkdir(parents=True, exist_ok=True)
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        for prompt in progress.track(chosen, description=one.name):
            rows.append(_row(one, prompt, where))
    return rows


def _row(one: Contestant, prompt: prompts.BenchPrompt, where: Path) -> dict:
    video, note = where / f"{prompt.id}.mp4", where / f"{prompt.id}.json"
    if video.exists() and note.exists():
        seconds = json.loads(note.read_text())["seconds"]
        frames, fps = read_frames(video)
    else:
        clip = one.make(prompt)
        seconds = clip.seconds
        part = video.with_suffix(".part")
        with part.open("wb") as file:
            write_mp4(file, clip.frames, fps=clip.fps)
        part.replace(video)
        note.write_text(json.dumps({"seconds": seconds, "prompt": prompt.prompt, "seed": prompt.plan_seed}))
        frames, fps = read_frames(video)  # judged as it is kept, compressed: every contestant alike
    found = evaluate(frames, prompt.graph, fps=fps)
    return {
        "id": prompt.id,
        "seconds": seconds,
        "verdicts": {name: list(values) for name, values in found.verdicts.items()},
        "adherence": found.adheres,
        "physics": found.obeys,
        "seen": [[o.seen_color, o.seen_shape, o.seen_size] for o in found.objects],
        "num_seen": found.num_seen,
        "camera_seen": list(found.camera),
        "events_seen": [[e.action, e.happens, e.seen_direction] for e in found.events],
        "measures": asdict(found.measures),
    }
