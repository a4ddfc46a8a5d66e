"""The curve of latency over PCR as an SVG, from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 60, 110, 40, 70
STYLE = 'font-family="sans-serif" font-size="13" fill="#333"'
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def curve_svg(points: Sequence[dict[str, Any]], model: str, machine: str) -> str:
    """Latency as a share of the dense network's over PCR, a line per batch size.

    points: dicts with `batch`, `pcr` and `of_dense`.
    """
    largest = math.ceil(max(point["pcr"] for point in points))
    highest = max(1.0, math.ceil(10 * max(point["of_dense"] for point in points)) / 10)

    def x(pcr: float) -> float:
        return LEFT + (pcr - 1) / (largest - 1) * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share / highest * (HEIGHT - TOP - BOTTOM)

    def text(left: float, top: float, words: str, more: str = "") -> str:
        return f'<text x="{left:.1f}" y="{top:.1f}" {more}>{escape(words)}</text>'

    def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {STYLE}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 22, f"{model}: time of a forward pass, ring network / dense", 'font-size="15"'),
    ]
    for tenth in range(0, round(10 * highest) + 1, 2):
        parts.append(line(x(1), y(tenth / 10), x(largest), y(tenth / 10), "#ddd"))
        parts.append(text(LEFT - 8, y(tenth / 10) + 4, f"{tenth / 10:.1f}", 'text-anchor="end"'))
    parts.append(line(x(1), y(1), x(largest), y(1), "#888"))
    parts += [
        text(x(pcr), HEIGHT - BOTTOM + 18, str(pcr), 'text-anchor="middle"')
        for pcr in range(1, largest + 1)
    ]
    parts.append(text((x(1) + x(largest)) / 2, HEIGHT - BOTTOM + 38, "PCR", 'text-anchor="middle"'))
    parts.append(text(LEFT, HEIGHT - 10, machine, 'font-size="10" fill="#777"'))
    for place, batch in enumerate(sorted({point["batch"] for point in points})):
        colour = COLOURS[place % len(COLOURS)]
        own = sorted((p["pcr"], p["of_dense"]) for p in points if p["batch"] == batch)
        path = " ".join(f"{x(pcr):.1f},{y(share):.1f}" for pcr, share in own)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(pcr):.1f}" cy="{y(share):.1f}" r="3.5" fill="{colour}"/>'
            for pcr, share in own
        ]
        last = own[-1]
        parts.append(text(x(last[0]) + 8, y(last[1]) + 4, f"batch {batch}", f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])
