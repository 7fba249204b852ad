"""The report's plots, as SVG in the page: nothing is loaded."""

import html
import math

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2430 }
table { border-collapse: collapse; margin: .6rem 0 1.6rem } td, th { padding: .25rem .6rem; text-align: left;
border-bottom: 1px solid #dfe4ea; vertical-align: top; font-variant-numeric: tabular-nums } th { font-weight: 600;
max-width: 24rem } small { color: #5b6675; font-weight: 400 } video { image-rendering: pixelated; background: #eee }
summary { cursor: pointer; font-size: 1.2em; font-weight: 600; margin: .6rem 0 } svg text { font: 12px system-ui }
"""
_COLORS = ("#8a94a3", "#c3a253", "#2563c9", "#d1495b", "#2a9d6f", "#7d4fb3", "#d97b29", "#3aa6b9")


def bars(scores: dict[str, dict[str, dict]], names: tuple[str, ...]) -> str:
    """Grouped bars with whiskers: one group a score, one bar a contestant."""
    wide, high, left = 1080, 260, 36
    group = (wide - left) / len(names)
    bar = group * 0.8 / max(len(scores), 1)
    parts = [_axis(left, wide, high)]
    for g, name in enumerate(names):
        for b, one in enumerate(scores.values()):
            score = one[name]
            if not score["n"]:
                continue
            x, middle = left + g * group + b * bar, left + g * group + (b + 0.5) * bar
            top, low, up = (high * (1 - score[key]) for key in ("value", "low", "high"))
            color = _COLORS[b % len(_COLORS)]
            parts.append(f"<rect x={x:.1f} y={top:.1f} width={bar * 0.92:.1f} height={high - top:.1f} fill='{color}'/>")
            parts.append(f"<line x1={middle:.1f} x2={middle:.1f} y1={low:.1f} y2={up:.1f} stroke='#1c2430'/>")
        parts.append(f"<text x={left + g * group + group * 0.4:.1f} y={high + 16} text-anchor=middle>{name}</text>")
    legend = _legend(list(scores), left, high + 36)
    return f"<svg viewBox='0 -8 {wide} {high + 50 + 18 * len(scores)}' width=100%>{''.join(parts)}{legend}</svg>"


def lines(points: dict[str, list[tuple[int, float, float | None]]]) -> str:
    """Score against steps (logarithmic), one line a contestant."""
    wide, high, left = 520, 220, 36
    steps = [step for line in points.values() for step, _, _ in line]
    low, span = math.log(min(steps)), max(math.log(max(steps)) - math.log(min(steps)), 1e-6)
    parts = [_axis(left, wide, high)]
    for n, line in enumerate(points.values()):
        places = [
            (left + 20 + (math.log(step) - low) / span * (wide - left - 50), high * (1 - score), step)
            for step, score, _ in sorted(line)
            if score == score
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        color = _COLORS[(n + 2) % len(_COLORS)]
        parts.append(f"<polyline points='{path}' fill=none stroke='{color}' stroke-width=2 />")
        for x, y, step in places:
            parts.append(f"<circle cx={x:.1f} cy={y:.1f} r=4 fill='{color}'/>")
            parts.append(f"<text x={x:.1f} y={high + 16} text-anchor=middle>{step}</text>")
    legend = _legend(list(points), left, high + 36, first=2)
    return f"<svg viewBox='0 -8 {wide} {high + 50 + 18 * len(points)}' width=520>{''.join(parts)}{legend}</svg>"


def _axis(left: int, wide: int, high: int) -> str:
    return "".join(
        f"<line x1={left} x2={wide} y1={high * (1 - v):.1f} y2={high * (1 - v):.1f} stroke='#dfe4ea'/>"
        f"<text x=0 y={high * (1 - v) + 4:.1f}>{v:.2g}</text>"
        for v in (0, 0.25, 0.5, 0.75, 1.0)
    )


def _legend(names: list[str], x: int, y: int, first: int = 0) -> str:
    return "".join(
        f"<rect x={x} y={y + 18 * n - 10} width=12 height=12 fill='{_COLORS[(n + first) % len(_COLORS)]}'/>"
        f"<text x={x + 18} y={y + 18 * n}>{html.escape(name)}</text>"
        for n, name in enumerate(names)
    )
