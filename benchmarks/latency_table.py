"""Tables of what latency.py measured, as Markdown.

PYTHONPATH=. python benchmarks/latency_table.py FILE.json …
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rsdtr.ring.forms import FORMS

Row = dict[str, Any]


def main() -> None:
    results = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    for result in results:
        for entry in result["models"]:
            print("\n".join(_about(entry, result)))


def _about(entry: Row, result: Row) -> Iterator[str]:
    yield f"## {entry['model']}, PCR {entry['pcr']:.2f}, FCR {entry['fcr']:.2f}\n"
    versions = f"{result['machine']}, ONNX Runtime {result['onnxruntime']}"
    yield f"{versions}, {result['threads']} threads.\n"
    for key in ("rows", "training"):
        if key in entry:
            yield from _networks(entry[key])
    if "layers" in entry:
        yield from _forms(entry)
    if "curve" in entry:
        yield from _table(
            ("batch", "PCR", "FCR", "FCR as it runs", "of dense"),
            (
                (
                    p["batch"],
                    _two(p["pcr"]),
                    _two(p["fcr"]),
                    _two(p["fcr_run"]),
                    _two(p["of_dense"]),
                )
                for p in entry["curve"]
            ),
        )


def _networks(rows: list[Row]) -> Iterator[str]:
    peaks = any("peak_bytes" in row for row in rows)
    yield from _table(
        ("what", "engine", "batch", "variant", "best ms", "median ms", "IQR ms", "of dense",
         "of the paper's", *(["peak MB"] if peaks else [])),
        (
            (row["scope"], row["engine"], row["batch"], row["variant"], _three(row["best_ms"]),
             _three(row["median_ms"]), _three(row["iqr_ms"]), _two(row["of_dense"]),
             _two(row["of_paper"]), *([f"{row['peak_bytes'] / 1e6:.0f}"] if peaks else []))
            for row in rows
        ),
    )  # fmt: skip


def _forms(entry: Row) -> Iterator[str]:
    """The roofline in numbers: over the layers, the achieved speed of every form."""
    worst, ceilings = entry["worst_auto_of_dense"], entry.get("ceilings")
    yield f"No layer's auto form takes more than {worst:.3f} of its dense time."
    if ceilings:
        yield (
            f"The machine at best: {ceilings['gflops_per_second']:.0f} GFLOP/s (product of "
            f"matrices), {ceilings['gigabytes_per_second']:.1f} GB/s (copy)."
        )
    yield ""
    rows = entry["layers"]
    groups = (
        (batch, form, [r for r in rows if (r["batch"], r["form"]) == (batch, form)])
        for batch in sorted({row["batch"] for row in rows})
        for form in FORMS
    )
    yield from _table(
        ("batch", "form", "GFLOP/s: median", "lowest", "highest", "FLOPs per byte: median",
         "of dense: median", "runs in layers"),
        (
            (batch, f"`{form}`".replace("|", "\\|"), *(_three(f(_each(own, "gflops_per_second")))
             for f in (statistics.median, min, max)),
             _three(statistics.median(_each(own, "flops_per_byte"))) if ceilings else "",
             _two(statistics.median(_each(own, "of_dense"))), sum(row["auto"] for row in own))
            for batch, form, own in groups
        ),
    )  # fmt: skip


def _each(rows: list[Row], key: str) -> list[float]:
    return [row[key] for row in rows]


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    heads = tuple(heads)
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
