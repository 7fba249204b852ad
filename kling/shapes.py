"""Axis legend and array types, used by every signature.

    b  batch            l  tokens of a sequence        k  objects (slots)
    c  channels         d  width of a token            n  attention heads
    f  frames           h  height       w  width

Video pixels are ``b c f h w`` float in [-1, 1] inside kling and ``f h w c`` uint8 at the edges (files, HTTP, metrics).
Latents are ``b c f h w`` on the VAE's grid. Types are checked at run time under test only (tests/conftest.py).
"""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

Frames: TypeAlias = UInt8[np.ndarray, "f h w 3"]  # RGB, as files and people see it

if TYPE_CHECKING:
    from torch import Tensor

    Video: TypeAlias = Float[Tensor, "b 3 F H W"]  # pixels in [-1, 1]; capitals: the pixel grid, not the latent
    Latents: TypeAlias = Float[Tensor, "b c f h w"]
    Tokens: TypeAlias = Float[Tensor, "b l d"]


def __getattr__(name: str) -> Any:
    """Types of tensors, made when they are asked for: who handles frames alone (curation, files) loads no torch."""
    axes = {"Video": "b 3 F H W", "Latents": "b c f h w", "Tokens": "b l d"}
    if name not in axes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch import Tensor

    globals()[name] = Float[Tensor, axes[name]]
    return globals()[name]
