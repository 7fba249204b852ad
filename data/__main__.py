"""`python -m data`: one table of subcommands; each is imported only when called."""

import sys

from kling import commands
from kling.errors import run_command

COMMANDS: commands.Commands = {
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
    "train-embedder": ("data.train_embedder:command", "teach the video-text embedder on playground clips"),
    "retrieval": ("data.retrieval:command", "whether the embedder knows which caption belongs to which clip"),
    "bench": ("data.bench:command", "race the scoring against a plain OpenCV script"),
    "speed": ("data.speed:command", "clips a second of curation and its stages, with 1 worker and with 2"),
    "report": ("data.report:command", "a page about a data set: counts, scores, clips"),
}


def dispatch(arguments: list[str]) -> int:
    return commands.dispatch("python -m data", COMMANDS, arguments)


if __name__ == "__main__":
    run_command(lambda: dispatch(sys.argv[1:]))
