"""The `kling` command: one table of subcommands; each is imported only when called, so that help stays instant."""

import sys

from kling import __version__, commands
from kling.errors import run_command

COMMANDS: commands.Commands = {
    "generate": ("kling.client.commands:generate", "make a video on a running service"),
    "get": ("kling.client.commands:get", "where a task is"),
    "wait": ("kling.client.commands:wait", "wait until a task ends"),
    "watch": ("kling.client.commands:watch", "every change of a task, as it happens"),
    "cancel": ("kling.client.commands:cancel", "stop a task"),
    "list": ("kling.client.commands:list_tasks", "your tasks"),
    "batch": ("kling.client.batch:command", "thousands of requests from a file, resumable"),
    "sample": ("kling.sample:command", "make a video in this process, without a service"),
    "inspect": ("kling.model.inspect:command", "parameters, tokens, FLOPs and memory of a preset"),
    "import-weights": ("kling.model.import_weights:command", "start from Wan 2.1/2.2 weights in a folder"),
    "export-weights": ("kling.model.export_weights:command", "our transformer as a diffusers folder"),
    "scene": ("kling.scene.command:command", "what a prompt is understood as, before anything is drawn"),
    "bench": ("kling.bench.command:command", "score this library or services on fixed prompts, from pixels"),
    "demo": ("kling.demo:command", "the whole loop on this machine"),
}


def main() -> None:
    run_command(lambda: dispatch(sys.argv[1:]))


def dispatch(arguments: list[str]) -> int:
    """Run one subcommand; returns its exit code. Raises ConfigError when it is unknown."""
    if arguments[:1] == ["--version"]:
        print(__version__)
        return 0
    about = f"""kling {__version__}: text-to-video, from raw clips to a served video.
kling COMMAND --help tells more. Applications: python -m data | train | serve
"""
    return commands.dispatch("kling", COMMANDS, arguments, about=about)


if __name__ == "__main__":
    main()
