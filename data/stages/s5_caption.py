"""Step 5: caption what has no caption yet, from what was measured. It says no more than that."""

from data.work import Clip


def caption_clip(clip: Clip) -> None:
    """An English and a Japanese template caption, for footage without ground truth."""
    if clip.captions:
        return
    brightness, difference = clip.scores["brightness"], clip.scores["frame_difference"]
    light = 0 if brightness < 0.25 else 2 if brightness > 0.65 else 1
    motion = 0 if difference < 1 else 2 if difference > 8 else 1
    english = f"{('a dark', 'a', 'a bright')[light]} video with {('hardly any', 'some', 'much')[motion]} motion"
    japanese = f"{('暗い', '', '明るい')[light]}映像、{('ほとんど動きがない', '動きがある', '動きが大きい')[motion]}"
    clip.captions = [
        {"text": english, "language": "en", "family": "template"},
        {"text": japanese, "language": "ja", "family": "template"},
    ]
