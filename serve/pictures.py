"""Pictures that callers send: checked before they are decoded, then fitted to the video's size."""

import base64
import binascii
import hashlib
import io
import re
import struct
import threading
from collections import deque

import av
import numpy as np
from PIL import Image, ImageOps

from kling.errors import InternalError

from .admission import NotAdmittedError

MAX_PIXELS = 40_000_000  # a picture of 10 kB may unpack to gigabytes: its header is asked first
# A large picture takes 0.5 GB for a moment: one is opened at a time, however many arrive together.
_ONE = threading.Lock()
_FORMATS = ("PNG", "JPEG", "WEBP")
_DATA_URL = re.compile(r"^data:image/[a-z+.-]{1,20};base64,", re.IGNORECASE)


def opened(text: str, field: str) -> Image.Image:
    """A picture of base64 text, upright, in RGB.

    Raises:
        NotAdmittedError: 422 that names the field: not base64, not a picture, too large, an address.
    """
    if re.match(r"^[a-z]{1,10}://", text[:12], re.IGNORECASE):
        raise _wrong(field, "addresses are not fetched: send the file in base64")
    try:
        data = base64.b64decode(_DATA_URL.sub("", text[:64]) + text[64:], validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(field, "not base64") from None
    return read(data, field)


def read(data: bytes, field: str) -> Image.Image:
    """The same from a file's bytes."""
    with _ONE:
        return _read(data, field)


def _read(data: bytes, field: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise _wrong(field, f"more than {MAX_PIXELS // 1_000_000} million pixels")
        if not 0.1 <= width / height <= 10:
            raise _wrong(field, "longer than ten times its width")
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture)
        return picture.convert("RGB")
    except NotAdmittedError:
        raise
    except (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, struct.error, Image.DecompressionBombError):
        # Pillow raises what its decoders raise.
        raise _wrong(field, "not a PNG, JPEG or WebP picture that can be read") from None


def fitted(picture: Image.Image, width_px: int, height_px: int) -> tuple[bytes, str]:
    """A PNG of the video's size (scaled to cover it, its middle kept), and the SHA-256 of its pixels."""
    made = ImageOps.fit(picture, (width_px, height_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    return buffer.getvalue(), hashlib.sha256(made.tobytes()).hexdigest()


def last_of(video: bytes) -> Image.Image:
    """The last frame of a video that this service made, decoded frame by frame."""
    with av.open(io.BytesIO(video)) as container:
        frames = deque(container.decode(video=0), maxlen=1)
        if not frames:
            raise InternalError("a finished video has no frames")
        [last] = frames
        return Image.fromarray(last.to_ndarray(format="rgb24"))


def pixels(png: bytes) -> np.ndarray:
    """h w 3, uint8, of a PNG that `fitted` made."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def as_text(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _wrong(field: str, why: str) -> NotAdmittedError:
    return NotAdmittedError(why, status=422, code="invalid", field=field)
