"""Step 4: score. Every number is stored; thresholds are applied later, by whoever reads the rows."""

from data.work import Clip
from kling.quality import picture, stillness


def score_clip(clip: Clip) -> None:
    """Add the clip's scores by name (docs/curation.md lists them)."""
    pictures = picture.measure(clip.pixels)
    still = stillness.measure(clip.pixels)
    clip.scores |= {
        name: getattr(pictures, name)
        for name in ("sharpness", "blockiness", "noise", "brightness", "contrast", "clipped", "colorfulness")
    }
    clip.scores |= {
        "frozen_frames": float(len(still.frozen)),
        "still_share": still.still_share,
        "frame_difference": float(sum(still.difference) / max(1, len(still.difference) - 1)),
    }
