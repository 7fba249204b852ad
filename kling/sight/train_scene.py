"""`python -m kling.sight train-scene`: the clouds of `kling.sight.scene`, from playground clips for training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from kling.bench.reader import read
from kling.errors import InputError
from kling.media.video import read_frames
from kling.scene.plan import Sidecar
from kling.sight import scene
from kling.sight.examples import soften


@dataclass(frozen=True, kw_only=True)
class Options:
    """Learn what the playground's places look like, in every light."""

    clips: tuple[str, ...]  # folders of mp4 and json
    out: str = "scene.safetensors"
    number: int = 0  # of clips; 0: all


def command(arguments: list[str]) -> int:
    """The subcommand's body.

    Raises:
        InputError: too few clips to say how their numbers vary.
    """
    options = tyro.cli(Options, args=arguments, prog="python -m kling.sight train-scene", description=Options.__doc__)
    files = sorted(path for folder in options.clips for path in Path(folder).glob("*.json"))
    files = files[: options.number or len(files)]
    if len(files) < 100:
        raise InputError(f"{len(files)} clips are too few", where=", ".join(options.clips), fix="Use 500 or more")
    rows, names = [], []
    for number, path in enumerate(files):
        sidecar = Sidecar.model_validate_json(path.read_bytes())
        frames, _ = read_frames(path.with_suffix(".mp4"))
        frames = frames[np.linspace(0, len(frames) - 1, 3).round().astype(int)]
        if number % 8 == 0:  # one in eight as a generator or a codec would spoil it
            frames = soften(frames, np.random.default_rng(sidecar.seed))
        rows.append(scene.features(read(frames)))
        names.append((sidecar.plan.environment.setting, sidecar.plan.environment.lighting))
    clouds = scene.fit(np.stack(rows), names)
    scene.save(clouds, options.out)
    print(f"{len(files)} clips, usual distance {clouds.usual:.2f}")
    return 0
