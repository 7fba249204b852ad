"""`python -m kling.sight NAME`: teach the networks that see, and measure them."""

import importlib
import sys

from kling.errors import ConfigError, run_command

# name: ("module:function taking the arguments after the name", what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "train-things": ("kling.sight.train_things:command", "teach what tracked things are and do"),
    "train-scene": ("kling.sight.train_scene:command", "learn what the playground's places look like"),
}


def dispatch(arguments: list[str]) -> int:
    """Run one command; returns its exit code.

    Raises:
        ConfigError: unknown command.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m kling.sight NAME ...\n")
        for command, (_, about) in COMMANDS.items():
            print(f"  {command:<16} {about}")
        return 0
    if name not in COMMANDS:
        raise ConfigError("unknown command", where=name, fix=f"Choose one of: {', '.join(COMMANDS)}")
    module, _, function = COMMANDS[name][0].partition(":")
    return getattr(importlib.import_module(module), function)(arguments[1:]) or 0


if __name__ == "__main__":
    run_command(lambda: dispatch(sys.argv[1:]))
