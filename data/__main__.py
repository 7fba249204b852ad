"""`python -m data`: one table of subcommands; each is imported only when called."""

import importlib
import sys
from collections.abc import Callable

from kling.errors import ConfigError, run_command

# name: ("module:function taking the arguments after the name", what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "playground": ("data.playground.command:command", "render clips with their ground truth"),
    "bench-prompts": ("data.playground.bench_prompts:command", "the prompts of `kling bench`, and their clips"),
    "curate": (
        "data.curate:command",
        "turn raw videos into a data set: python -m data curate PRESET --input URI --out URI",
    ),
    "select": (
        "data.select:command",
        'choose clips by stored scores: python -m data select DATASET --where "sharpness > 0.4" --out SELECTION',
    ),
    "study": ("data.study:command", "false alarms on clean clips, and what is found of planted jumps and drifts"),
    "labels": ("data.label_study:command", "labels and tracks from pixels, held to playground truth"),
    "bench": ("data.bench:command", "race the scoring against a plain OpenCV script"),
    "report": ("data.report:command", "a page about a data set: counts, scores, clips"),
}


def dispatch(arguments: list[str]) -> int:
    """Run one subcommand; returns its exit code.

    Raises:
        ConfigError: unknown subcommand.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m data COMMAND ...\n")
        for command, (_, about) in COMMANDS.items():
            print(f"  {command:<14} {about}")
        return 0
    if name not in COMMANDS:
        raise ConfigError("unknown command", where=name, fix=f"Choose one of: {', '.join(COMMANDS)}")
    module, _, function = COMMANDS[name][0].partition(":")
    run: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), function)
    return run(arguments[1:]) or 0


if __name__ == "__main__":
    run_command(lambda: dispatch(sys.argv[1:]))
