"""`python -m data report DATASET`: one page with counts, reasons, scores, clips, speed and cost."""

import base64
import html
from collections import Counter
from dataclasses import dataclass

import numpy as np
import tyro
from rich.console import Console

from data.ledger import read_ledger
from data.stages.s7_commit import read_runs, read_seconds
from data.work import Outcome
from kling import shards, storage

_SHOWN = 6  # best and worst clips on the page
_BINS = 24
_COUNTS = ("files", "done", "filtered", "failed", "shots", "clips", "rows", "failed_clips")


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page about a curated data set."""

    dataset: tyro.conf.Positional[str]
    """Where `curate` put it (local or s3://)."""
    out: str | None = None
    """File of the page (default: DATASET/report.html)."""
    price_per_hour: float = 0.096
    """What one core costs an hour, in dollars, for the cost per video hour (default: an on-demand cloud core)."""


def command(arguments: list[str]) -> int:
    """`python -m data report`."""
    options = tyro.cli(Report, args=arguments, prog="python -m data report")
    where = options.out or storage.join(options.dataset, "report.html")
    storage.write_bytes(where, page(options.dataset, options.price_per_hour).encode())
    Console().print(f"  {where}", highlight=False, soft_wrap=True)
    return 0


def page(dataset: str, price_per_hour: float) -> str:
    """The whole page, clips included, so that it can be sent as one file.

    Raises:
        InputError: not a finished data set.
    """
    manifest = shards.read_manifest(dataset)
    outcomes = read_ledger(dataset)
    columns = ["clip_id", "source", "start_s", "video", "scores", "captions", "duplicate_of"]
    rows = [row for shard in manifest.shards for row in shards.read_rows(dataset, shard, columns)]
    rows.sort(key=lambda row: -dict(row["scores"]).get("total", 0.0))
    parts = [
        f"<h1>{html.escape(dataset)}</h1><p>preset {html.escape(manifest.preset)}</p>",
        _table("Counts", ((name.replace("_", " "), manifest.counts[name]) for name in _COUNTS)),
        _table("Files by what became of them", _reasons(outcomes)),
        _table("Warnings", ((o.source, "; ".join(o.warnings)) for o in outcomes if o.warnings)),
        _speed(dataset, outcomes, manifest, price_per_hour),
        _histograms(rows),
        _clips(dataset, "Best clips by total score", rows[:_SHOWN]),
        _clips(dataset, "Worst clips by total score", rows[::-1][:_SHOWN]),
    ]
    return _PAGE.replace("BODY", "\n".join(parts))


def _reasons(outcomes: list[Outcome]) -> list[tuple[str, int]]:
    counted = Counter(o.state if o.state == "done" else f"{o.state} in {o.stage}: {o.reason}" for o in outcomes)
    return counted.most_common(40)


def _speed(dataset: str, outcomes: list[Outcome], manifest: shards.Manifest, price_per_hour: float) -> str:
    seconds = read_seconds(dataset)
    hours = sum(o.duration_s for o in outcomes) / 3600
    num_clips = max(1, manifest.counts["rows"])
    rows = [(stage, f"{spent:.1f} s", f"{num_clips / max(spent, 1e-9):.1f} clips a second a worker")
            for stage, spent in sorted(seconds.items())]  # fmt: skip
    total_s = sum(seconds.values())
    cost = total_s / 3600 * price_per_hour / max(hours, 1e-9)
    note = f"{hours * 3600:.0f} s of video; {total_s:.0f} core seconds; ${cost:.2f} a video hour "
    note += f"at ${price_per_hour} an hour a core"
    runs = []
    for run in read_runs(dataset):
        files, spent = run["num_files"], run["seconds"]
        runs.append((f"{files:g} files", f"{spent:.1f} s", f"{files / spent:.2f} files a second"))
    runs_table = _table("Whole runs, start to manifest", runs)
    return _table("Working time of each stage", rows) + f"<p>{note}</p>" + runs_table


def _histograms(rows: list[dict]) -> str:
    names = sorted({name for row in rows for name, _ in row["scores"]})
    return "<h2>Scores</h2><div class=grid>" + "".join(_histogram(name, rows) for name in names) + "</div>"


def _histogram(name: str, rows: list[dict]) -> str:
    values = np.array([value for row in rows for key, value in row["scores"] if key == name])
    counts, _ = np.histogram(values, _BINS)
    heights = 60 * counts / max(counts.max(), 1)
    bars = "".join(
        f'<rect x="{i * 8}" y="{60 - height:.1f}" width="7" height="{height:.1f}"/>' for i, height in enumerate(heights)
    )
    label = f"{html.escape(name)}: {values.min():.3g} to {values.max():.3g}, median {np.median(values):.3g}"
    return f'<figure><svg viewBox="0 0 {_BINS * 8} 60">{bars}</svg><figcaption>{label}</figcaption></figure>'


def _clips(dataset: str, title: str, rows: list[dict]) -> str:
    shown = []
    for row in rows:
        video = base64.b64encode(storage.read_bytes(storage.join(dataset, row["video"]))).decode()
        total = dict(row["scores"]).get("total", float("nan"))
        words = row["captions"][0]["text"] if row["captions"] else ""
        caption = f"{total:.3f} · {row['source']} at {row['start_s']:.2f} s · {words}"
        shown.append(
            f'<figure><video controls loop muted src="data:video/mp4;base64,{video}"></video>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f"<h2>{title}</h2><div class=grid>{''.join(shown)}</div>"


def _table(title: str, rows) -> str:
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{title}</h2><table>{body}</table>" if body else ""


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Curation report</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
td{padding:.15rem .8rem .15rem 0;border-bottom:1px solid #ddd;vertical-align:top}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}
figure{margin:0}figcaption{font-size:.8rem;color:#555;overflow-wrap:anywhere}
video{width:100%;image-rendering:pixelated;background:#eee}svg{width:100%;height:4rem;background:#f4f4f4}rect{fill:#3566a8}
</style><body>BODY</body></html>
"""
