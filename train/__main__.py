"""`python -m train PRESET [--stage dit|text|vae] --data URI --out URI`; `--help` lists the rest.

`python -m train plan PRESET --nodes 8` tells memory, time and money before a job starts;
`python -m train pack PRESET FOLDER... --out URI` puts parts of several weights folders into one.
"""

import argparse
import importlib
import json
import sys

import tyro

from kling.errors import run_command
from kling.presets import get_preset

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

        request = tyro.cli(plan.PlanRequest, args=arguments[1:], prog="python -m train plan")
        print(plan.describe(plan.checked_plan(request)))
        return
    if arguments[:1] == ["bench"]:
        from . import bench

        request = tyro.cli(bench.BenchRun, args=arguments[1:], prog="python -m train bench")
        print(json.dumps(bench.bench(request), indent=1))
        return
    if arguments[:1] == ["pack"]:
        from . import pack

        request = tyro.cli(pack.Pack, args=arguments[1:], prog="python -m train pack")
        print("\n".join(pack.pack(request)))
        return
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--stage", choices=STAGES, default="dit")
    chosen, rest = reader.parse_known_args(arguments)
    settings, where = STAGES[chosen.stage]
    run = tyro.cli(settings, args=rest, prog=f"python -m train [--stage {'|'.join(STAGES)}]")
    preset = get_preset(run.preset)
    module, _, function = where.partition(":")
    getattr(importlib.import_module(module), function)(run, preset)


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
