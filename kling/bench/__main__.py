"""`python -m kling.bench NAME`: benchmarks of the library, each a module of its own."""

import importlib
import sys

from kling.errors import ConfigError, run_command

# name: ("module:function taking the arguments after the name", what it measures)
BENCHES: dict[str, tuple[str, str]] = {
    "framing": ("kling.bench.framing:command", "what of the planned scenes stays in the picture"),
    "model": ("kling.bench.model:command", "the transformer against diffusers' Wan and against bare matrix products"),
    "reconstruct": ("kling.bench.reconstruct:command", "what of objects is readable after a VAE, and before"),
    "train-camera": ("kling.bench.train_camera:command", "teach the evaluator the names of camera moves"),
    "train-reader": ("kling.bench.train_reader:command", "teach the evaluator to read pictures, on playground clips"),
}


def dispatch(arguments: list[str]) -> int:
    """Run one bench; returns its exit code.

    Raises:
        ConfigError: unknown bench.
    """
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m kling.bench NAME ...\n")
        for bench, (_, about) in BENCHES.items():
            print(f"  {bench:<10} {about}")
        return 0
    if name not in BENCHES:
        raise ConfigError("unknown bench", where=name, fix=f"Choose one of: {', '.join(BENCHES)}")
    module, _, function = BENCHES[name][0].partition(":")
    return getattr(importlib.import_module(module), function)(arguments[1:]) or 0


if __name__ == "__main__":
    run_command(lambda: dispatch(sys.argv[1:]))
