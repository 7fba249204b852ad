"""A contact sheet: random clips beside ground truth, several frames of each, for a person to judge."""

import textwrap
from pathlib import Path

import cv2
import numpy as np

from kling.bench.contestants import TRUTH
from kling.bench.prompts import BenchPrompt
from kling.bench.report import slug
from kling.errors import InternalError
from kling.media.video import read_frames

_SAMPLES, _COLUMNS, _SHOWN, _TILE_PX, _LINE_PX = 24, 2, 6, 112, 13


def write_sheet(target: Path, out: Path, chosen: list[BenchPrompt], names: list[str], *, seed: int) -> None:
    """A PNG of 24 random prompts: ground truth first, then every other contestant, one strip each."""
    picked = sorted(np.random.default_rng(seed).permutation(len(chosen))[:_SAMPLES])
    order = sorted(names, key=lambda name: name != TRUTH)
    cells = [_cell(out, chosen[i], order) for i in picked]
    while len(cells) % _COLUMNS:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.concatenate(cells[i : i + _COLUMNS], axis=1) for i in range(0, len(cells), _COLUMNS)]
    ok, png = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not ok:
        raise InternalError("the contact sheet cannot be encoded")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png.tobytes())


def _cell(out: Path, prompt: BenchPrompt, names: list[str]) -> np.ndarray:
    width = _SHOWN * _TILE_PX
    words = prompt.prompt if prompt.prompt.isascii() else f"(Japanese) {_english(prompt)}"  # the font has no Japanese
    text = [f"{prompt.id} {line}" if n == 0 else line for n, line in enumerate(textwrap.wrap(words, 96)[:4])]
    parts = [_line(line, width) for line in (text + [""] * 4)[:4]]
    for name in names:
        frames, _ = read_frames(out / "clips" / slug(name) / f"{prompt.id}.mp4")
        times = np.linspace(0, len(frames) - 1, _SHOWN).round().astype(int)
        tile = (_TILE_PX, _TILE_PX)
        strip = np.concatenate([cv2.resize(frames[i], tile, interpolation=cv2.INTER_NEAREST) for i in times], axis=1)
        parts += [_line(name, width, grey=110), strip]
    cell = np.concatenate(parts)
    cell[:, -4:] = 255
    return cell


def _english(prompt: BenchPrompt) -> str:
    events = ", ".join(f"{e.agent} {e.action} {e.direction or ''}".strip() for e in prompt.graph.events)
    camera = ", ".join(f"{m.kind} {m.direction or ''}".strip() for m in prompt.graph.camera)
    return "; ".join([*(f"{o.id} {o.phrase}" for o in prompt.graph.objects), events, camera])


def _line(text: str, width: int, grey: int = 0) -> np.ndarray:
    row = np.full((_LINE_PX, width, 3), 255, np.uint8)
    cv2.putText(row, text, (3, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (grey,) * 3, 1, cv2.LINE_AA)
    return row
