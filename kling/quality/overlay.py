"""Text laid over the picture (subtitles, logos, news tickers): where it is, and how much of the picture it takes.

The detector is PP-OCR's differentiable binarisation (Liao et al. 2020, arXiv:1911.08947) in onnxruntime; its weights
are in the package rapidocr. Optional: extra `ocr`. What the text says is not read. Text that belongs to the scene
(signs, jerseys) counts as well.
"""

from functools import cache
from importlib.util import find_spec

import cv2
import numpy as np

from kling.errors import ConfigError

_WORK_PX = 480  # longer side that the detector works on; letters under 1/40 of the height are lost there


def check_installed() -> None:
    """Raises ConfigError when the packages are missing."""
    missing = [name for name in ("rapidocr", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"not installed: {', '.join(missing)}", where="overlay text", fix="pip install kling[ocr]")


def text_share(picture: np.ndarray) -> float:
    """Share of a picture (h w 3 uint8 RGB) that lies in the outlines of text, 0..1.

    Raises:
        ConfigError: the packages are missing.
    """
    covered = np.zeros(picture.shape[:2], np.uint8)
    for outline in outlines(picture):
        cv2.fillPoly(covered, [np.round(outline).astype(np.int32)], 1)
    return float(covered.mean())


def outlines(picture: np.ndarray) -> list[np.ndarray]:
    """4 2 (x, y in pixels) for each line of text found in a picture (h w 3 uint8 RGB)."""
    height, width = picture.shape[:2]
    scale = _WORK_PX / max(height, width)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    work = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    found = _detector()(np.ascontiguousarray(work[..., ::-1]), use_det=True, use_cls=False, use_rec=False)
    if found.boxes is None:
        return []
    return [np.asarray(box, np.float32) * (width / size[0], height / size[1]) for box in found.boxes]


@cache
def _detector():
    check_installed()
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.max_side_len": _WORK_PX,
            "Det.limit_type": "max",
            "Det.limit_side_len": _WORK_PX,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
