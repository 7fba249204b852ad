"""Step 4: score. Every number is stored; thresholds are applied later, by whoever reads the rows."""

import cv2
import numpy as np

from data.work import Clip, Options
from kling.quality import camera, motion, overlay, picture, semantic, stillness, temporal, total, tracking
from kling.shapes import Frames


def score_clip(clip: Clip, options: Options | None = None) -> None:
    """Add the clip's scores by name (docs/curation.md lists them)."""
    cv2.setNumThreads(1)  # workers share the cores already; and sums stay the same on every machine
    frames = clip.pixels
    flow = motion.flows(motion.shrink(frames))  # everything that is used twice is measured once
    pictures, still = picture.measure(frames), stillness.measure(frames)
    moved, times = motion.measure(frames, flow), temporal.measure(frames, flow)
    parts = total.Parts(
        motion=moved,
        tracking=tracking.measure(frames),
        semantic=semantic.measure(frames, *embedders(options)),
        noise=pictures.noise,
        num_frozen=len(still.frozen),
        detail=total.detail(frames),
    )
    whole, seen = total.combine(parts, num_frames=len(frames)), camera.measure(frames)
    for name in ("sharpness", "blockiness", "noise", "brightness", "contrast", "clipped", "colorfulness"):
        clip.scores[name] = getattr(pictures, name)
    for name in ("total", "motion", "tracking", "semantic", "fidelity", "detail"):
        clip.scores[name] = getattr(whole, name)
    for name in ("pan", "tilt", "zoom", "roll", "fit", "perspective"):
        clip.scores[f"camera_{name}"] = getattr(seen, name)
    if options is not None and options.overlay_text:
        if clip.still is None:
            raise ValueError("no still to look for text in")
        clip.scores["text_share"] = overlay.text_share(clip.still)
    clip.scores |= {
        "speed": moved.speed,
        "moving_share": moved.moving_share,
        "warp_error": moved.warp_error,
        "frozen_frames": float(len(still.frozen)),
        "still_share": still.still_share,
        "jumps": float(len(times.critical)),
        "flicker": times.flicker,
        "steadiness": times.mean,
        "trend": times.trend.slope,
        "trend_p": times.trend.p_value,
        "drift_p": times.drift.p_value,
        "drift": times.drift.change,
    }
    clip.look, clip.flow = _look(frames), flow


def embedders(options: Options | None = None) -> tuple[semantic.Embedder, semantic.VideoTextEmbedder]:
    """What semantic coherence is measured with: the look, and what is seen in it."""
    import torch  # loaded by those who need it: readers start without

    from kling.sight import embedder, foreign

    torch.set_num_threads(1)  # as above
    learned = foreign.load(options.embedder) if options is not None and options.embedder else embedder.packaged()
    return semantic.PixelStatistics(), learned


def _look(frames: Frames) -> str:
    """Perceptual hashes (hex, 64 bits each) of the first, middle and last frame: alike clips have near hashes.

    The signs of the low frequencies of a 32x32 luma picture against their median (Zauner 2010, section 3.2).
    """
    bits = []
    for frame in (frames[0], frames[len(frames) // 2], frames[-1]):
        small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        low = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
        bits += list(low > np.median(low[1:]))
    return np.packbits(bits).tobytes().hex()
