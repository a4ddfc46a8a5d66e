"""Latency over PCR, and the roofline of the layers, as SVG from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 60, 110, 40, 70
STYLE = 'font-family="sans-serif" font-size="13" fill="#333"'
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


FORM_COLOURS = {
    "dense": "#333", "pipeline": "#cc79a7", "O|IHW": "#0072b2", "I|HWO": "#d55e00",
    "IH|WO": "#009e73",
}  # fmt: skip


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

    parts = _begun(f"{model}: time of a forward pass, ring network / dense", machine)
    for tenth in range(0, round(10 * highest) + 1, 2):
        parts.append(_line(x(1), y(tenth / 10), x(largest), y(tenth / 10), "#ddd"))
        parts.append(_text(LEFT - 8, y(tenth / 10) + 4, f"{tenth / 10:.1f}", 'text-anchor="end"'))
    parts.append(_line(x(1), y(1), x(largest), y(1), "#888"))
    parts += [
        _text(x(pcr), HEIGHT - BOTTOM + 18, str(pcr), 'text-anchor="middle"')
        for pcr in range(1, largest + 1)
    ]
    parts.append(
        _text((x(1) + x(largest)) / 2, HEIGHT - BOTTOM + 38, "PCR", 'text-anchor="middle"')
    )
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
        parts.append(_text(x(last[0]) + 8, y(last[1]) + 4, f"batch {batch}", f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])


def roofline_svg(
    rows: Sequence[dict[str, Any]], ceilings: dict[str, float], model: str, machine: str
) -> str:
    """Achieved GFLOP/s of every layer over its FLOPs per byte, a mark per form, filled: auto.

    rows: dicts with `form`, `auto`, `flops_per_byte` and `gflops_per_second`; ceilings: the most
    `gflops_per_second` and `gigabytes_per_second` of the machine.
    """
    peak, width = ceilings["gflops_per_second"], ceilings["gigabytes_per_second"]
    ridge = peak / width  # left of it memory limits, right of it arithmetic
    left = math.floor(math.log10(min(ridge, *(row["flops_per_byte"] for row in rows))))
    right = math.ceil(math.log10(max(row["flops_per_byte"] for row in rows)))
    low = math.floor(math.log10(min(row["gflops_per_second"] for row in rows)))
    high = math.ceil(math.log10(max(peak, *(row["gflops_per_second"] for row in rows))))

    def x(intensity: float) -> float:
        return LEFT + (math.log10(intensity) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(speed: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(speed) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = _begun(f"{model}, batch {rows[0]['batch']}: GFLOP/s of each layer and form", machine)
    for power in range(low, high + 1):
        parts.append(_line(x(10**left), y(10**power), x(10**right), y(10**power), "#ddd"))
        parts.append(_text(LEFT - 8, y(10**power) + 4, f"{10**power:g}", 'text-anchor="end"'))
    for power in range(left, right + 1):
        place = x(10**power), HEIGHT - BOTTOM + 18
        parts.append(_text(*place, f"{10**power:g}", 'text-anchor="middle"'))
    middle = (x(10**left) + x(10**right)) / 2
    parts.append(_text(middle, HEIGHT - BOTTOM + 38, "FLOPs per byte", 'text-anchor="middle"'))
    start = max(10.0**left, 10.0**low / width)
    parts.append(_line(x(start), y(start * width), x(ridge), y(peak), "#888"))
    parts.append(_line(x(ridge), y(peak), x(10**right), y(peak), "#888"))
    for row in sorted(rows, key=lambda row: bool(row["auto"])):
        colour = FORM_COLOURS[row["form"]]
        fill = colour if row["auto"] else "none"
        centre = f'cx="{x(row["flops_per_byte"]):.1f}" cy="{y(row["gflops_per_second"]):.1f}"'
        parts.append(f'<circle {centre} r="4" fill="{fill}" stroke="{colour}"/>')
    for number, (form, colour) in enumerate(FORM_COLOURS.items()):
        parts.append(_text(WIDTH - RIGHT + 14, TOP + 20 * number + 10, form, f'fill="{colour}"'))
    parts.append(_text(WIDTH - RIGHT + 14, TOP + 120, "● runs", 'font-size="11"'))
    return "\n".join([*parts, "</svg>", ""])


def _begun(title: str, machine: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {STYLE}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 22, title, 'font-size="15"'),
        _text(LEFT, HEIGHT - 10, machine, 'font-size="10" fill="#777"'),
    ]


def _text(left: float, top: float, words: str, more: str = "") -> str:
    return f'<text x="{left:.1f}" y="{top:.1f}" {more}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
