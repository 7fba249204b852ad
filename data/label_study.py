"""`python -m data labels CLIPS`: labels and annotation from pixels, against playground truth that they do not see.

Each clip is looked at as footage without a sidecar would be (`kling.sight`); then its sidecar is opened. A found thing
is the true one nearest to it in the picture. A label that is not sure is left out: accuracy is of what is said,
coverage is how much is said. Things that nobody found count against coverage.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from data.study import told
from kling import storage
from kling.bench.reader import SIZE_NAMES
from kling.errors import InputError
from kling.media.video import read_frames
from kling.prompt.graph import ACTIONS, SHAPES
from kling.scene.plan import Sidecar
from kling.sight import annotation, labels
from kling.sight.annotation import Annotation
from kling.sight.examples import Truth, counts, pair, truths


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Accuracy and coverage of labels from pixels, and the errors of tracks, on playground clips."""

    clips: tyro.conf.Positional[str]
    """Folder of playground clips (mp4 and json)."""
    num_clips: int = 200


class Tally:
    """What was right, of what was said, of what there was; and sums of errors and true lengths."""

    def __init__(self):
        self.said = defaultdict[str, list[bool]](list)
        self.there = defaultdict[str, int](int)
        self.errors = defaultdict[str, list[tuple[float, float]]](list)

    def label(self, name: str, said: object, true: object) -> None:
        """``said`` None: nothing was said."""
        self.there[name] += 1
        if said is not None:
            self.said[name].append(said == true)

    def vectors(self, name: str, said: np.ndarray, true: np.ndarray) -> None:
        """Add (n k) vectors of one thing."""
        if len(said):
            wrong, long = np.linalg.norm(said - true, axis=-1), np.linalg.norm(true, axis=-1)
            self.errors[name].append((float(wrong.sum()), float(long.sum())))


def command(arguments: list[str]) -> int:
    """`python -m data labels`."""
    options = tyro.cli(Labels, args=arguments, prog="python -m data labels")
    files = [uri for uri in storage.list_files(options.clips) if uri.endswith(".json")][: options.num_clips]
    if not files:
        raise InputError("no clips with truth", where=options.clips, fix="Make some: python -m data playground")
    cv2.setNumThreads(1)
    tally = Tally()
    for uri in track(files, description="looking", transient=True):
        sidecar = Sidecar.model_validate_json(storage.read_bytes(uri))
        frames, fps = read_frames(storage.read_bytes(uri.removesuffix(".json") + ".mp4"))
        compare(labels.see(frames, fps=fps), sidecar, tally)
    console = Console(width=160)
    for line in lines(tally):
        console.print(line, highlight=False, markup=False)
    return 0


def compare(sight: labels.Sight, sidecar: Sidecar, tally: Tally) -> None:
    """Hold one clip's labels and annotation to its truth."""
    environment = sidecar.plan.environment
    moves = tuple(sorted(move for move in sidecar.plan.camera.moves if move != "static"))
    tally.label("looks like the playground", sight.known, True)
    tally.label("setting", sight.setting, environment.setting)
    tally.label("lighting", sight.lighting, environment.lighting)
    tally.label("camera", sight.camera if sight.known else None, moves)
    true = truths(sidecar)
    tally.label("number of objects", sight.number, sum(counts(one) for one in true))
    found = pair([thing.track for thing in sight.things], true)
    for i, (one, item) in enumerate(zip(true, sidecar.plan.objects, strict=True)):
        if counts(one):
            _thing(sight.things[found[i]] if i in found else None, one, tally)
            tally.label(f"shape of a {item.proxy}", sight.things[found[i]].shape if i in found else None, item.proxy)
    said = annotation.from_sight(sight, fps=sidecar.fps, num_frames=sidecar.num_frames) if sight.known else None
    if said is not None:
        _tracks(said, annotation.from_truth(sidecar.track), {i: f"o{j + 1}" for i, j in found.items()}, true, tally)


def _thing(thing: labels.Thing | None, true: Truth, tally: Tally) -> None:
    tally.label("color", thing and thing.color, true.color)
    tally.label("shape", thing and thing.shape, SHAPES[true.shape])
    tally.label("size", None if thing is None else thing.size, SIZE_NAMES[true.size])
    if np.isfinite(true.action).all():
        does = tuple(name for name, does in zip(ACTIONS, true.action, strict=True) if does)
        tally.label("actions", (thing and thing.actions) or None, does)
        for name in does:
            tally.label(f"actions: {name}", (thing and thing.actions) or None, does)


def _tracks(said: Annotation, true: Annotation, found: dict[int, str], truth: list[Truth], tally: Tally) -> None:
    mine = {thing.id: thing for thing in said.things}
    name_of = {true.things[i].id: name for i, name in found.items()}
    for i, name in found.items():
        one, other = mine[name], true.things[i]
        there = [
            f for f in range(true.num_frames)
            if one.place[f] is not None and other.place[f] is not None and truth[i].visible[f] > 0.25
        ]  # fmt: skip
        _vectors(tally, "velocity in the picture", one.slide, other.slide, there)
        if there:
            places = [np.array([thing.place[f] for f in there], float) for thing in (one, other)]
            away = np.linalg.norm(places[0] - places[1], axis=1)
            tally.errors["place, of a picture height"].append((float(away.sum()), float(len(away))))
    _contacts(said, true, name_of, tally)
    for f in range(true.num_frames):
        near = [name for name in true.order[f] if name_of.get(name) in said.order[f]]
        for a, b in combinations(near, 2):
            if _overlap(truth, true, a, b, f):
                order = said.order[f]
                tally.label("which hides which", order.index(name_of[a]) < order.index(name_of[b]), True)


def _vectors(tally: Tally, name: str, said, true, frames: list[int]) -> None:
    tally.vectors(name, np.array([said[f] for f in frames]), np.array([true[f] for f in frames]))


def _overlap(truth: list[Truth], true: Annotation, a: str, b: str, frame: int) -> bool:
    """Whether a part of one is hidden, and the other is near enough to be what hides it."""
    index = {thing.id: i for i, thing in enumerate(true.things)}
    one, other = truth[index[a]], truth[index[b]]
    close = np.linalg.norm(one.middle_px[frame] - other.middle_px[frame]) < 12
    return bool(close and 0.1 < min(one.visible[frame], other.visible[frame]) < 0.95)


def _contacts(said: Annotation, true: Annotation, name_of: dict[str, str], tally: Tally) -> None:
    """Floor and pairs, within one frame (an impact lies between two)."""
    mine = {(c.frame, frozenset((c.a, c.b))) for c in said.contacts}
    theirs = {
        (c.frame, frozenset(name_of.get(x, x) for x in (c.a, c.b)))
        for c in true.contacts
        if all(x == "floor" or x in name_of for x in (c.a, c.b))
    }
    for floor in (True, False):
        kind = "contact with the floor" if floor else "contact of two things"
        for frame, who in theirs:
            if ("floor" in who) == floor:
                near = any((frame + d, who) in mine for d in (-1, 0, 1))
                tally.label(f"{kind}: found", near, True)
        for frame, who in mine:
            if ("floor" in who) == floor and all(x == "floor" or x in name_of.values() for x in who):
                near = any((frame + d, who) in theirs for d in (-1, 0, 1))
                tally.label(f"{kind}: true where told", near, True)


def lines(tally: Tally) -> list[str]:
    """The table of docs/benchmarks/curation.md."""
    rows = ["| label | right, of what was said | said, of what there was |", "|---|---|---|"]
    for name, there in tally.there.items():
        said = tally.said[name]
        if said:
            rows.append(f"| {name} | {told(said)} | {100 * len(said) / there:.1f} % |")
    rows += ["", "| track | mean error over mean length | median thing |", "|---|---|---|"]
    for name, pairs in tally.errors.items():
        wrong, long = np.array(pairs).T
        some = long > 1e-6
        median = np.median(wrong[some] / long[some])
        rows.append(f"| {name} | {100 * wrong.sum() / long.sum():.1f} % | {100 * median:.1f} % |")
    return rows
