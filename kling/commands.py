"""Command lines with subcommands: a table, and what runs one of it. A module is imported only when it is called."""

import importlib
from collections.abc import Callable

from kling.errors import ConfigError

# name: ("module:function taking the arguments after the name", what it does)
Commands = dict[str, tuple[str, str]]


def dispatch(program: str, commands: Commands, arguments: list[str], *, about: str = "") -> int:
    """Run the command that the first argument names; returns its exit code. Without arguments, list the commands.

    Raises:
        ConfigError: an unknown command.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(f"usage: {program} COMMAND ...\n{about}")
        width = max(map(len, commands)) + 2
        for command, (_, text) in commands.items():
            print(f"  {command:<{width}}{text}")
        return 0
    if name not in commands:
        raise ConfigError("unknown command", where=name, fix=f"Choose one of: {', '.join(commands)}")
    module, _, function = commands[name][0].partition(":")
    run: Callable[[list[str]], int | None] = getattr(importlib.import_module(module), function)
    return run(arguments[1:]) or 0
