"""A contact sheet: many clips on one picture, several frames each, for a person to judge."""

import textwrap

import cv2
import numpy as np

from kling import storage
from kling.errors import InternalError
from kling.media.video import read_frames
from kling.scene.plan import Sidecar

_TILE_PX = 128
_COLUMNS = 3  # clips side by side
_SHOWN = 6  # frames of each
_TEXT_PX = 54
_GAP_PX = 3


def sheet(out: str, names: list[str]) -> bytes:
    """A PNG of the named clips of a folder."""
    cells = [_cell(out, name) for name in names]
    while len(cells) % _COLUMNS:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.concatenate(cells[i : i + _COLUMNS], axis=1) for i in range(0, len(cells), _COLUMNS)]
    ok, png = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    if not ok:
        raise InternalError("the contact sheet cannot be encoded")
    return png.tobytes()


def _cell(out: str, name: str) -> np.ndarray:
    frames, _ = read_frames(storage.read_bytes(storage.join(out, f"{name}.mp4")))
    sidecar = Sidecar.model_validate_json(storage.read_bytes(storage.join(out, f"{name}.json")))
    chosen = np.linspace(0, len(frames) - 1, _SHOWN).round().astype(int)
    scale = _TILE_PX / max(frames.shape[1:3])
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    tiles = [cv2.resize(frames[i], None, fx=scale, fy=scale, interpolation=method) for i in chosen]
    for tile in tiles[1:]:
        tile[:, :_GAP_PX] = 255  # without it a thing near an edge seems to stand between two frames
    strip = np.concatenate(tiles, axis=1)
    text = np.full((_TEXT_PX, strip.shape[1], 3), 255, np.uint8)
    caption = next(c.text for c in sidecar.captions if c.language == "en")  # OpenCV's font has no Japanese
    moves = " and ".join(sidecar.plan.camera.moves)
    for n, line in enumerate(textwrap.wrap(f"{name[-4:]} [{moves}] {caption}", 118)[:4]):
        cv2.putText(text, line, (3, 11 + 13 * n), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    cell = np.concatenate([text, strip])
    cell[:, -4:] = 255
    return cell
