"""`python -m train PRESET [--stage dit|text|vae] --data URI --out URI` trains; COMMANDS lists what else there is.

`--dry-run` builds and checks what would run, and starts nothing (train/dry.py).
"""

import argparse
import sys

import tyro

from kling import commands
from kling.errors import ConfigError, run_command
from kling.presets import PRESETS, get_preset

from . import config
from .stages import STAGES, start

COMMANDS: commands.Commands = {
    "plan": ("train.plan:command", "memory, time and money before a job starts: plan PRESET --nodes 8"),
    "replay": ("train.replay:command", "run again what a record tells: replay RUN/run.json --out NEW"),
    "pack": ("train.pack:command", "parts of several weights folders in one: pack PRESET FOLDER... --out URI"),
    "finer": ("train.finer:command", "begin a transformer from a coarser one: finer PRESET SOURCE --out URI"),
    "wider": ("train.wider:command", "begin a VAE from a narrower one: wider PRESET SOURCE --out URI"),
    "bench": ("train.bench:command", "race the loop against a plain one: bench PRESET --data URI"),
    "measure": ("train.measure:command", "memory against the plan, time by ranks and ZeRO stage"),
}


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] in COMMANDS:
        commands.dispatch("python -m train", COMMANDS, arguments)
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
    start(where, run)


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
