"""What the owner of a key could do better, from what the key's tasks asked for and how they fared: when to ask, which
size, which length. Every sentence carries the figures it was made from."""

import datetime as dt
import json
import statistics
import time
from collections import Counter, defaultdict

import sqlalchemy as sa

from kling.presets import Preset
from kling.schema import Recommendation, UsageWindow

from .admission import next_smaller
from .keys import REFUSE_SHARE, WARN_SHARE
from .orders import Order
from .tasks import TASKS

_LOOK_BACK_S = 30 * 86_400.0
_MAX_TASKS = 1000
_FEW = 5  # tasks: fewer say nothing about a habit
_PEAK_SHARE = 0.4
_LARGE_SHARE = 0.5


def recommend(
    connection: sa.Connection, key_id: str, windows: tuple[UsageWindow, ...], preset: Preset
) -> tuple[Recommendation, ...]:
    """Advice by topic, the most pressing first."""
    wanted = (TASKS.c.owner == key_id) & (TASKS.c.created_at > time.time() - _LOOK_BACK_S)
    columns = (TASKS.c.order, TASKS.c.adjustments, TASKS.c.predicted_s, TASKS.c.created_at, TASKS.c.started_at)
    newest = sa.select(*columns).where(wanted).order_by(TASKS.c.created_at.desc()).limit(_MAX_TASKS)
    rows = list(connection.execute(newest).mappings())
    said = [("quota", text) for text in _quota(windows)]
    if len(rows) >= _FEW:
        orders = [Order.from_json(row["order"]) for row in rows]
        for topic, text in (
            ("peak_hours", _peak(rows, orders)),
            ("resolution", _resolution(rows, orders, preset)),
            ("duration", _duration(orders, windows, preset)),
        ):
            said += [(topic, text)] if text else []
    return tuple(Recommendation.model_validate({"topic": topic, "advice": text}) for topic, text in said)


def _quota(windows: tuple[UsageWindow, ...]) -> list[str]:
    return [
        f"{window.share:.0%} of the {window.window}'s limit is used (refused above 95 %): shorter clips cost "
        "proportionally less; make drafts short, and repeat the good ones long with the same seed"
        for window in windows
        if window.limit_s and window.share >= WARN_SHARE
    ]


def _peak(rows: list[sa.RowMapping], orders: list[Order]) -> str | None:
    """The hour of the day (UTC) that most of the video was asked for in, with how long tasks waited then."""
    video_s: dict[int, float] = defaultdict(float)
    waited: dict[bool, list[float]] = defaultdict(list)
    hours = [dt.datetime.fromtimestamp(row["created_at"], dt.UTC).hour for row in rows]
    for hour, order in zip(hours, orders, strict=True):
        video_s[hour] += order.duration_s
    peak = max(video_s, key=lambda hour: video_s[hour])
    share = video_s[peak] / max(1e-9, sum(video_s.values()))
    if len(video_s) < 2 or share <= _PEAK_SHARE:
        return None
    for hour, row in zip(hours, rows, strict=True):
        if row["started_at"] is not None:
            waited[hour == peak].append(row["started_at"] - row["created_at"])
    text = f"{share:.0%} of your video is asked for at {peak:02d}:00-{peak:02d}:59 UTC"
    if waited[True] and waited[False]:
        then, else_ = statistics.median(waited[True]), statistics.median(waited[False])
        text += f", where a task waits {then:.0f} s (median; {else_:.0f} s at other hours)"
    return f"{text}: spread it over the day, or give what can wait a lower priority"


def _resolution(rows: list[sa.RowMapping], orders: list[Order], preset: Preset) -> str | None:
    """Sizes that had to be made smaller, else the size that most computing went into."""
    shrunk = Counter(
        (change["asked"], change["granted"])
        for row in rows
        for change in json.loads(row["adjustments"])
        if change["field"] == "resolution"
    )
    if shrunk.total() > 0.2 * len(rows):
        (asked, granted), _ = shrunk.most_common(1)[0]
        num = shrunk.total()
        return f"{num} of {len(rows)} requests were made smaller (mostly {asked} to {granted}): ask for {granted}"
    seconds: dict[tuple[int, int], float] = defaultdict(float)
    for row, order in zip(rows, orders, strict=True):
        seconds[order.width_px, order.height_px] += row["predicted_s"]
    (width, height), most = max(seconds.items(), key=lambda item: item[1])
    share = most / max(1e-9, sum(seconds.values()))
    smaller = next_smaller(preset, width, height, aspect=width / height)
    if smaller is None or share <= _LARGE_SHARE:
        return None
    less = 1 - smaller[0] * smaller[1] / (width * height)
    return (
        f"{share:.0%} of your computing time went into {width}x{height}: {smaller[0]}x{smaller[1]} needs at least "
        f"{less:.0%} less, which is enough for drafts"
    )


def _duration(orders: list[Order], windows: tuple[UsageWindow, ...], preset: Preset) -> str | None:
    """Clips much longer than the preset's own, with what a shorter one would leave of the quota."""
    mean_s = statistics.fmean(order.duration_s for order in orders)
    own_s = (preset.clip.num_frames - 1) / preset.clip.fps
    if mean_s < 1.5 * own_s:
        return None
    less = 1 - own_s / mean_s
    text = f"your clips last {mean_s:.1f} s on average; the model's own {own_s:g} s use {less:.0%} less of a quota"
    tight = max((w for w in windows if w.limit_s), key=lambda w: w.share, default=None)
    if tight is not None and tight.limit_s:
        room_s = REFUSE_SHARE * tight.limit_s
        text += f": {room_s / own_s:.0f} clips a {tight.window} instead of {room_s / mean_s:.0f}"
    return text
