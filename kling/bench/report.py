"""From judged clips to numbers with intervals: report.json for machines, report.html for people."""

import html
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kling.bench import plots
from kling.bench.contestants import RECONSTRUCTED, TRUTH, Contestant
from kling.bench.evaluate import ATTRIBUTES
from kling.bench.intervals import Share, clustered, mean
from kling.bench.prompts import BenchPrompt

SHARES = (*ATTRIBUTES, "adherence", "physics")
MEASURES = ("motion_consistency", "temporal_consistency", "temporal_trend", "sharpness")
_SHOWN = 24  # prompts whose videos are on the page
_ABOUT = {
    "adherence": "colour, shape, count, relation, direction and camera all right",
    "physics": "the clip obeys the laws of motion, of clips that can be judged",
    "direction": "of the events whose direction was said",
    "action": "rough marks of each action on the thing's path; rolling and sliding are one",
}


def slug(name: str) -> str:
    """A folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def build(
    everyone: list[Contestant], chosen: list[BenchPrompt], results: dict[str, list[dict]], *, command: str, machine: str
) -> dict:
    """All numbers: for each contestant, for all prompts and for each group of them."""
    made: dict = {"command": command, "machine": machine, "num_prompts": len(chosen), "contestants": {}}
    ceiling = _scores(results[TRUTH]) if TRUTH in results else {}
    groups = sorted({group for prompt in chosen for group in prompt.groups})
    for one in everyone:
        rows = results[one.name]
        scores = _scores(rows)
        by: dict[str, dict[str, dict]] = {}
        for kind, value in groups:
            part = [row for row, prompt in zip(rows, chosen, strict=True) if (kind, value) in prompt.groups]
            by.setdefault(kind, {})[value] = {"num_clips": len(part), **_plain(_scores(part))}
        seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
        made["contestants"][one.name] = {
            "steps": one.steps,
            "plan": one.plan,
            "scores": _plain(scores),
            "of_ceiling": {
                name: scores[name].value / ceiling[name].value
                for name in SHARES
                if name in ceiling and scores[name].n and ceiling[name].n and ceiling[name].value > 0
            },
            "measures": {name: asdict(mean([row["measures"][name] for row in rows])) for name in MEASURES},
            "trend_significant": float(np.mean([row["measures"]["temporal_trend_p"] < 0.05 for row in rows])),
            "seconds_per_clip": asdict(mean(seconds)) if seconds else None,
            "by": by,
        }
    return made


def _scores(rows: list[dict]) -> dict[str, Share]:
    scores = {name: clustered([row["verdicts"][name] for row in rows]) for name in ATTRIBUTES}
    scores["adherence"] = clustered([[row["adherence"]] for row in rows])
    scores["physics"] = clustered([[row["physics"]] if row["physics"] is not None else [] for row in rows])
    return scores


def _plain(scores: dict[str, Share]) -> dict[str, dict]:
    return {name: asdict(score) for name, score in scores.items()}


def write(out: Path, made: dict, chosen: list[BenchPrompt], results: dict[str, list[dict]]) -> Path:
    """report.json (numbers and every verdict) and report.html; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    whole = {**made, "clips": results}
    (out / "report.json").write_text(json.dumps(_finite(whole), ensure_ascii=False, indent=1, allow_nan=False))
    page = out / "report.html"
    page.write_text(_page(made, chosen, results))
    return page


def _finite(value):
    """What JSON can hold: a number that is not one becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _page(made: dict, chosen: list[BenchPrompt], results: dict[str, list[dict]]) -> str:
    names = list(made["contestants"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>kling bench</title>",
        "<meta name=viewport content='width=device-width'>",
        f"<style>{plots.STYLE}</style><h1>kling bench</h1>",
        f"<p>{made['num_prompts']} prompts. <code>{html.escape(made['command'])}</code>, "
        f"{html.escape(made['machine'])}. Read from pixels alone; 95 % intervals in brackets (Wilson, a clip counts "
        f"once). <b>{TRUTH}</b> is the evaluator's own ceiling, <b>{RECONSTRUCTED}</b> what the VAE leaves readable.",
        _scores_table(made, names),
        plots.bars({name: made["contestants"][name]["scores"] for name in names}, SHARES),
        _measures_table(made, names),
        _steps(made),
    ]
    for kind in ("objects", "action", "camera", "combination", "language"):
        parts.append(_group_table(made, names, kind))
    parts.append(_videos(made, chosen, results))
    return "\n".join(parts)


def _scores_table(made: dict, names: list[str]) -> str:
    rows = []
    for score in SHARES:
        cells = []
        for name in names:
            one = made["contestants"][name]
            share = one["of_ceiling"].get(score)
            tail = f"<br><small>{share:.0%} of ceiling</small>" if share is not None and name != TRUTH else ""
            cells.append(f"<td>{_cell(one['scores'][score])}{tail}")
        about = f"<br><small>{_ABOUT[score]}</small>" if score in _ABOUT else ""
        rows.append(f"<tr><th>{score}{about}{''.join(cells)}")
    return f"<h2>Scores</h2><table><tr><th>{_heads(names)}{''.join(rows)}</table>"


def _measures_table(made: dict, names: list[str]) -> str:
    rows = []
    for measure in MEASURES:
        cells = (made["contestants"][name]["measures"][measure] for name in names)
        digits = 5 if measure == "temporal_trend" else 3
        text = "".join(f"<td>{c['value']:.{digits}f} [{c['low']:.{digits}f}, {c['high']:.{digits}f}]" for c in cells)
        rows.append(f"<tr><th>{measure.replace('_', ' ')}{text}")
    trends = "".join(f"<td>{made['contestants'][name]['trend_significant']:.0%}" for name in names)
    rows.append(f"<tr><th>clips with a significant trend{trends}")
    times = (made["contestants"][name]["seconds_per_clip"] for name in names)
    cells = "".join(f"<td>{t['value']:.2f} [{t['low']:.2f}, {t['high']:.2f}]" if t else "<td>-" for t in times)
    rows.append(f"<tr><th>seconds per clip{cells}")
    return f"<h2>Measures and time</h2><table><tr><th>{_heads(names)}{''.join(rows)}</table>"


def _steps(made: dict) -> str:
    points: dict[str, list[tuple[int, float, float | None]]] = {}
    for name, one in made["contestants"].items():
        if one["steps"] is not None:
            seconds = one["seconds_per_clip"]["value"] if one["seconds_per_clip"] else None
            line = name.rsplit(", ", 1)[0]
            points.setdefault(line, []).append((one["steps"], one["scores"]["adherence"]["value"], seconds))
    if not any(len(line) > 1 for line in points.values()):
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(line)}<td>{steps}<td>{score:.3f}<td>{'-' if seconds is None else f'{seconds:.2f}'}"
        for line, values in points.items()
        for steps, score, seconds in sorted(values)
    )
    table = f"<table><tr><th><th>steps<th>adherence<th>seconds per clip{rows}</table>"
    return f"<h2>Steps</h2>{plots.lines(points)}{table}"


def _group_table(made: dict, names: list[str], kind: str) -> str:
    groups = made["contestants"][names[0]]["by"].get(kind, {})
    rows = []
    for score in ("adherence", "color", "shape", "count", "direction", "camera", "physics"):
        for group in groups:
            cells = "".join(f"<td>{_cell(made['contestants'][name]['by'][kind][group][score])}" for name in names)
            rows.append(f"<tr><th>{score}, {html.escape(group)} <small>({groups[group]['num_clips']})</small>{cells}")
    open_ = " open" if kind == "objects" else ""
    return (
        f"<details{open_}><summary>By {kind}</summary><table><tr><th>{_heads(names)}{''.join(rows)}</table></details>"
    )


def _cell(score: dict) -> str:
    return f"{score['value']:.3f} <small>[{score['low']:.2f}, {score['high']:.2f}]</small>" if score["n"] else "-"


def _heads(names: list[str]) -> str:
    return "".join(f"<th>{html.escape(name)}" for name in names)


def _videos(made: dict, chosen: list[BenchPrompt], results: dict[str, list[dict]]) -> str:
    names = list(results)
    picked = np.random.default_rng(0).permutation(len(chosen))[:_SHOWN]
    rows = []
    for i in sorted(picked):
        cells = []
        for name in names:
            row = results[name][i]
            wrong = [score for score in ATTRIBUTES if not all(row["verdicts"][score])]
            told = f"wrong: {', '.join(wrong)}" if wrong else "all right"
            source = f"clips/{slug(name)}/{chosen[i].id}.mp4"
            cells.append(
                f"<td><video src='{source}' width=128 height=128 loop muted autoplay playsinline></video><br>"
                f"<small>{html.escape(told)}</small>"
            )
        rows.append(f"<tr><th>{chosen[i].id} {html.escape(chosen[i].prompt)}{''.join(cells)}")
    return f"<h2>{len(rows)} random prompts</h2><table><tr><th>{_heads(names)}{''.join(rows)}</table>"
