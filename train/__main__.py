"""`python -m train PRESET [--stage dit|text|vae] --data URI --out URI`; `--help` lists the rest.

`--dry-run` builds and checks what would run, and starts nothing (train/dry.py).
`python -m train replay RUN/run.json --out NEW` runs again what a record tells (train/replay.py);
`python -m train plan PRESET --nodes 8` tells memory, time and money before a job starts;
`python -m train bench PRESET --data URI` and `python -m train measure` make the tables of docs/benchmarks/training.md;
`python -m train pack PRESET FOLDER... --out URI` puts parts of several weights folders into one;
`python -m train finer PRESET SOURCE --out URI` starts a transformer from one with coarser tokens.
"""

import argparse
import importlib
import json
import sys
from dataclasses import replace
from typing import Any

import tyro

from kling.errors import ConfigError, run_command
from kling.presets import PRESETS, get_preset

from . import config

# stage: (its settings, "module:function taking (settings, preset)")
STAGES = {
    "dit": (config.TrainRun, "train.trainer:train_dit"),
    "text": (config.TextRun, "train.text:train_text"),
    "vae": (config.VAERun, "train.vae:train_vae"),
}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["plan"]:
        from . import plan

        name = next((word for word in arguments if word in PRESETS), None)
        prog = "python -m train plan"
        if name is None:  # without defaults of a preset: what is missing or unknown is said
            request = tyro.cli(plan.PlanRequest, args=arguments[1:], prog=prog)
        else:
            default = plan.PlanRequest(preset=name, **plan.scale_of(name))
            request = tyro.cli(plan.PlanRequest, args=arguments[1:], prog=prog, default=default)
        print(plan.describe(plan.checked_plan(request)))
        return
    if arguments[:1] == ["bench"]:
        from . import bench

        request = tyro.cli(bench.BenchRun, args=arguments[1:], prog="python -m train bench")
        print(json.dumps(bench.bench(request), indent=1))
        return
    if arguments[:1] == ["measure"]:
        from . import measure

        request = tyro.cli(measure.MeasureRun, args=arguments[1:], prog="python -m train measure")
        print("\n\n".join("\n".join(lines) for lines in measure.tables(request).values()))
        return
    if arguments[:1] == ["pack"]:
        from . import pack

        request = tyro.cli(pack.Pack, args=arguments[1:], prog="python -m train pack")
        print("\n".join(pack.pack(request)))
        return
    if arguments[:1] == ["replay"]:
        _replay(arguments[1:])
        return
    if arguments[:1] == ["finer"]:
        from . import finer

        print(finer.finer(tyro.cli(finer.Finer, args=arguments[1:], prog="python -m train finer")))
        return
    reader = argparse.ArgumentParser(prog="python -m train", add_help=False, allow_abbrev=False)
    reader.add_argument("--stage", choices=STAGES, default="dit")
    reader.add_argument("--dry-run", action="store_true")
    chosen, rest = reader.parse_known_args(arguments)
    settings, where = STAGES[chosen.stage]
    prog = f"python -m train [--dry-run] [--stage {'|'.join(STAGES)}]"
    if chosen.dry_run:
        _dry_run(chosen.stage, rest, prog)
        return
    if chosen.stage == "dit":
        given = {"data": tyro.MISSING, "out": tyro.MISSING}
        run = tyro.cli(settings, args=rest, prog=prog, default=_default_run(rest, **given))
    else:
        run = tyro.cli(settings, args=rest, prog=prog)
    _start(where, run)


def _start(where: str, run: Any) -> None:
    preset = get_preset(run.preset)
    module, _, function = where.partition(":")
    getattr(importlib.import_module(module), function)(run, preset)


def _replay(arguments: list[str]) -> None:
    """The record's settings are the defaults; what is given beside --out overrides them."""
    from .replay import recorded

    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("nothing to replay", where="replay", fix="python -m train replay RUN/run.json --out NEW")
    stage, run = recorded(arguments[0], {name: settings for name, (settings, _) in STAGES.items()})
    default = replace(run, out=tyro.MISSING)
    settings, where = STAGES[stage]
    _start(where, tyro.cli(settings, args=arguments[1:], prog="python -m train replay RUN/run.json", default=default))


def _default_run(arguments: list[str], **given) -> config.TrainRun:
    """The defaults of the preset that is named in the arguments."""
    name = next((word for word in arguments if word in PRESETS), None)
    if name is None:
        return config.TrainRun(preset=tyro.MISSING, **given)
    return config.TrainRun(preset=name, **config.scale_of(get_preset(name)), **given)


def _dry_run(stage: str, arguments: list[str], prog: str) -> None:
    from . import dry

    if stage != "dit":
        raise ConfigError("only the dit stage runs on a cluster", where=f"--stage {stage} --dry-run")
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--gpus-per-node", type=int, default=dry.Nodes.gpus)
    reader.add_argument("--gpu", default=dry.Nodes.gpu)
    nodes, rest = reader.parse_known_args(arguments)
    run = tyro.cli(config.TrainRun, args=rest, prog=prog, default=_default_run(rest, data="", out=""))
    made = dry.dry_run(run, get_preset(run.preset), dry.Nodes(gpus=nodes.gpus_per_node, gpu=nodes.gpu))
    print(dry.describe(made))


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
