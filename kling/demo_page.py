"""The page the demo ends with: what each stage did, in one file without scripts."""

import html
import json
from pathlib import Path

from kling import shards

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #d8dee4 }
td, th { padding: .15rem .9rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; vertical-align: top }
video { width: 20rem; border-radius: 8px; background: #000 }
figure { margin: 0 }
svg { width: 100%; height: auto }
.row { display: flex; gap: 2.5rem; flex-wrap: wrap; align-items: flex-start }
pre { white-space: pre-wrap; background: #eef1f4; padding: .8rem; border-radius: 8px; font-size: 13px }
"""


def render(out: Path, prompt: str, task: dict, timing: str) -> str:
    """The page's HTML.

    Args:
        out: the demo's folder, holding dataset/, run/, stream.mp4 and video.mp4.
        prompt: what was asked for.
        task: the task as the service last told it.
        timing: one sentence about how long it took.
    """
    dataset = str(out / "dataset")
    manifest = shards.read_manifest(dataset)
    rows = [row for shard in manifest.shards for row in shards.read_rows(dataset, shard, ["clip_id", "scores"])]
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = [m for m in map(json.loads, lines) if "loss" in m and "step" in m]
    losses = [(m["step"], m["loss"]) for m in metrics]
    videos = "".join(
        f'<figure><video src="{name}" controls autoplay loop muted playsinline></video>'
        f"<figcaption>{what}</figcaption></figure>"
        for name, what in (("stream.mp4", "as streamed"), ("video.mp4", "as downloaded"))
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Kling: the loop</title><style>{_STYLE}</style>
<h1>From raw clips to a served video</h1>
<p>{len(rows)} clips in {len(manifest.shards)} shards, {len(losses)} recorded training steps, one video.</p>
<h2>Curation</h2>
<div class="row">{_counts(manifest.counts)}{_scores(rows)}</div>
<h2>Training</h2>
{_curve(losses)}
<h2>Serving</h2>
<p>“{html.escape(prompt)}”. {html.escape(timing)}</p>
<div class="row">{videos}</div>
<pre>{html.escape(json.dumps(task, indent=1, ensure_ascii=False))}</pre>
</html>
"""


def _counts(counts: dict[str, int]) -> str:
    cells = "".join(f"<tr><td>{html.escape(name)}<td>{number}" for name, number in sorted(counts.items()))
    return f"<table><tr><th>count<th>{cells}</table>"


def _scores(rows: list[dict]) -> str:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["scores"] or ():
            values.setdefault(name, []).append(value)
    cells = "".join(
        f"<tr><td>{html.escape(name)}<td>{sum(v) / len(v):.3f}<td>{min(v):.3f}<td>{max(v):.3f}"
        for name, v in sorted(values.items())
    )
    return f"<table><tr><th>score<th>mean<th>least<th>most{cells}</table>"


def _curve(losses: list[tuple[int, float]]) -> str:
    """The loss by step as inline SVG."""
    if not losses:
        return "<p>No steps were recorded.</p>"
    width, height, pad = 900, 260, 44
    first, last = losses[0][0], losses[-1][0]
    values = [value for _, value in losses]
    low, high = min(values), max(values)

    def place(step: int, value: float) -> str:
        x = pad + (width - 2 * pad) * (step - first) / max(1, last - first)
        y = height - pad - (height - 2 * pad) * (value - low) / max(1e-9, high - low)
        return f"{x:.1f},{y:.1f}"

    box = f'x="{pad}" y="{pad}" width="{width - 2 * pad}" height="{height - 2 * pad}"'
    told = f"loss {values[0]:.3f} → {values[-1]:.3f} (least {low:.3f}, most {high:.3f})"
    return f"""<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss by step" font-size="14">
<rect {box} fill="#fff" stroke="#d8dee4"/>
<polyline points="{" ".join(place(*point) for point in losses)}" fill="none" stroke="#0969da" stroke-width="2"/>
<text x="{pad}" y="{height - 14}">step {first}</text>
<text x="{width - pad}" y="{height - 14}" text-anchor="end">step {last}</text>
<text x="{pad}" y="{pad - 12}">{told}</text></svg>"""
