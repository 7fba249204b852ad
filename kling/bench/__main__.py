"""`python -m kling.bench NAME`: benchmarks of the library, each a module of its own."""

import sys

from kling import commands
from kling.errors import run_command

BENCHES: commands.Commands = {
    "framing": ("kling.bench.framing:command", "what of the planned scenes stays in the picture"),
    "model": ("kling.bench.model:command", "the transformer against diffusers' Wan and against bare matrix products"),
    "pipeline": ("kling.bench.wan_pipeline:command", "a whole clip, against diffusers' WanPipeline with these weights"),
    "reconstruct": ("kling.bench.reconstruct:command", "what of objects is readable after a VAE, and before"),
    "rollout": ("kling.bench.rollout:command", "the parts of clips several times as long as the trained ones"),
    "train-camera": ("kling.bench.train_camera:command", "teach the evaluator the names of camera moves"),
    "train-reader": ("kling.bench.train_reader:command", "teach the evaluator to read pictures, on playground clips"),
}


def dispatch(arguments: list[str]) -> int:
    return commands.dispatch("python -m kling.bench", BENCHES, arguments)


if __name__ == "__main__":
    run_command(lambda: dispatch(sys.argv[1:]))
