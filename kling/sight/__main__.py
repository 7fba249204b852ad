"""`python -m kling.sight NAME`: teach the networks that see, and measure them."""

import sys

from kling import commands
from kling.errors import run_command

COMMANDS: commands.Commands = {
    "train-things": ("kling.sight.train_things:command", "teach what tracked things are and do"),
    "train-scene": ("kling.sight.train_scene:command", "learn what the playground's places look like"),
}


def dispatch(arguments: list[str]) -> int:
    return commands.dispatch("python -m kling.sight", COMMANDS, arguments)


if __name__ == "__main__":
    run_command(lambda: dispatch(sys.argv[1:]))
