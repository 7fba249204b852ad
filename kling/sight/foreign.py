"""A SigLIP, SigLIP 2 or CLIP of the `transformers` library in place of the playground's own embedder.

    from kling.sight.foreign import ForeignEmbedder
    embedder = ForeignEmbedder(Path("siglip-base-patch16-224"))

The folder is one that `save_pretrained` wrote, or a download of a published model: config.json, model.safetensors,
tokenizer files, preprocessor_config.json. Nothing is fetched and nothing is unpickled. Any other model is put in its
place by a class with the same four members (`kling.quality.semantic.VideoTextEmbedder`).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from kling.errors import CheckpointError
from kling.shapes import Frames


class ForeignEmbedder:
    """`kling.quality.semantic.VideoTextEmbedder`: a clip's vector is the mean of those of its frames."""

    max_frames: int | None = 8

    def __init__(self, folder: Path):
        """Load from a folder.

        Raises:
            CheckpointError: files are missing or of a model that does not embed pictures and texts.
        """
        from transformers import AutoModel, AutoTokenizer  # seconds: only who uses it waits

        try:
            model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            prepared = json.loads((folder / "preprocessor_config.json").read_bytes())
            self._side = int(model.config.vision_config.image_size)
            self._longest = int(model.config.text_config.max_position_embeddings)
            self._mean, self._std = (torch.tensor(prepared[f"image_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"no model there that embeds pictures and texts ({str(error).splitlines()[0]})",
                where=str(folder),
                fix="Give a folder of a SigLIP or CLIP as transformers' save_pretrained writes it",
            ) from error
        self._model = model.eval().requires_grad_(False)
        self.name = f"{model.config.model_type}-{digest(folder)}"

    @torch.no_grad()
    def embed_frames(self, frames: Frames) -> np.ndarray:
        """f d float32, each of length 1."""
        side = (self._side, self._side)
        small = np.stack([cv2.resize(frame, side, interpolation=cv2.INTER_AREA) for frame in frames])
        pictures = (torch.from_numpy(small).permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
        return _unit(self._model.get_image_features(pixel_values=pictures))

    def embed_clip(self, frames: Frames) -> np.ndarray:
        """d float32 of length 1."""
        count = min(len(frames), self.max_frames or len(frames))
        mean = self.embed_frames(frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]).mean(axis=0)
        return mean / np.linalg.norm(mean)

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """n d float32, each of length 1. SigLIP was taught on texts filled up to full length."""
        options = {"padding": "max_length", "truncation": True, "max_length": self._longest, "return_tensors": "pt"}
        return _unit(self._model.get_text_features(**self._tokenizer(list(texts), **options)))


@cache
def load(folder: str) -> ForeignEmbedder:
    """One a process and folder; raises CheckpointError as ForeignEmbedder does."""
    return ForeignEmbedder(Path(folder))


def digest(folder: Path) -> str:
    """Which weights: the start of their SHA-256.

    Raises:
        CheckpointError: there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError("no *.safetensors there", where=str(folder), fix="Give a folder of a SigLIP or CLIP")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            total.update(hashlib.file_digest(data, "sha256").digest())
    return total.hexdigest()[:16]


def _unit(output: Any) -> np.ndarray:
    vectors: Tensor = getattr(output, "pooler_output", output)  # transformers 4 gives the vectors themselves
    return fn.normalize(vectors, dim=-1).numpy()
