"""Step 6: encode. Pixels become latents, captions become text states; the encoder is loaded once a worker."""

import numpy as np
import torch
from einops import rearrange

from data.work import Unit
from kling.model.checkpoint import load_part
from kling.model.text import TextEncoder
from kling.model.vae import VideoVAE
from kling.presets import Preset

_CLIPS_A_BATCH = 8  # fixed, like the threads: the same clips give the same bytes on every run


class Encoder:
    """Holds the VAE and the text encoder. On a cluster with GPUs it uses the one it is given."""

    def __init__(self, preset: Preset, weights: str):
        torch.set_num_threads(1)  # sums depend on how many threads share them
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._vae, self._text = VideoVAE(preset.vae), TextEncoder(preset.text, tokenizer_dir=weights)
        load_part(weights, "vae", self._vae)
        load_part(weights, "text", self._text)
        self._vae.to(self._device).eval()
        self._text.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> Unit:
        """Fill latents and text states of every clip that has not failed.

        Raises:
            ConfigError: the preset's clip does not fit its VAE.
        """
        clips = [clip for clip in unit.clips if clip.failed is None]
        for start in range(0, len(clips), _CLIPS_A_BATCH):
            batch = clips[start : start + _CLIPS_A_BATCH]
            pixels = torch.from_numpy(np.stack([clip.pixels for clip in batch])).to(self._device)
            video = rearrange(pixels, "b f h w c -> b c f h w").float() / 127.5 - 1
            for clip, latents in zip(batch, self._vae.encode(video).cpu().numpy(), strict=True):
                clip.latents = latents.astype(np.float16)
        for clip in clips:
            clip.text_states = [self._states(caption["text"]) for caption in clip.captions]
        return unit

    def _states(self, text: str) -> np.ndarray:
        """l d float16 of one caption, alone in its batch: what is beside it cannot change it."""
        states, mask = self._text.encode([text])
        return states[0, mask[0]].cpu().numpy().astype(np.float16)
