"""The averaged weights as a folder that serves at once: dit from the run, vae and text from what encoded the data."""

from dataclasses import asdict

from kling import __version__, storage
from kling.model.checkpoint import read_card, read_file, write_part
from kling.presets import Preset

from .config import TrainRun
from .ema import ShardedEMA
from .ranks import Ranks
from .trained import PREFIX


def export_weights(run: TrainRun, preset: Preset, ema: ShardedEMA, step: int, ranks: Ranks, *, encoders: str) -> str:
    """Write OUT/weights; all ranks call it, since each holds a part of every parameter. Returns its URI."""
    target = storage.join(run.out, "weights")
    tensors = ((name.removeprefix(PREFIX), tensor) for name, tensor in ema.whole())
    if ranks.rank == 0:
        note = f"kling {__version__}: {step} steps of {run.batch_size} clips, seed {run.seed}, average {run.ema}"
        write_part(target, "dit", tensors, preset=preset.name, config=asdict(preset.dit), note=note)
        _bring_encoders(target, encoders, preset)
    else:
        for _ in tensors:  # take part in gathering
            pass
    ranks.barrier()
    return target


def _bring_encoders(target: str, encoders: str, preset: Preset) -> None:
    """Once: the parts vae and text as they are, unless they are there already."""
    have, want = read_card(target).parts, read_card(encoders).parts
    for name in ("vae", "text"):
        sums = [file.sha256 for file in want[name].files]
        if name in have and [file.sha256 for file in have[name].files] == sums:
            continue
        part = want[name]
        tensors = (pair for file in part.files for pair in read_file(storage.join(encoders, file.name), file))
        write_part(target, name, tensors, preset=preset.name, config=part.config, note=part.note)
