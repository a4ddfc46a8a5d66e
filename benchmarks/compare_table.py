"""The cells of comparisons as Markdown, a table for each PCR, the most accurate method first.

PYTHONPATH=. python benchmarks/compare_table.py compare.json …
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rsdtr.baselines.comparison import Cell

HEADER = ("method", "PCR", "FCR", "latency", "bytes", "accuracy (95 % interval)",
          "relative errors of the layers", "seconds")  # fmt: skip


def main() -> None:
    cells = [
        Cell.model_validate(cell)
        for name in sys.argv[1:]
        for cell in json.loads(Path(name).read_text(encoding="utf-8"))["cells"]
    ]
    cells.sort(key=lambda cell: (cell.asked, -(cell.accuracy or 0)))
    for asked, group in groupby(cells, lambda cell: cell.asked):
        print(f"\n### PCR {asked:g}\n")
        for row in (HEADER, ["---"] * len(HEADER), *map(_row, group)):
            print(f"| {' | '.join(row)} |")


def _row(cell: Cell) -> Iterator[str]:
    yield f"`{cell.method}`"
    if cell.accuracy is None or cell.interval is None:
        yield from ("", "", "", "", f"failed: {cell.failed}", "", "")
        return
    low, high = cell.interval
    errors = [error for _, error in cell.relative_errors]
    yield from (
        f"{cell.pcr:.3f}",
        f"{cell.fcr:.3f}",
        f"{cell.latency_ratio:.2f}",
        f"{cell.bytes:,}",
        f"{cell.accuracy:.2f} % ({low:.2f} to {high:.2f})",
        f"{min(errors):.2f} to {max(errors):.2f}" if errors else "",
        f"{cell.seconds:.1f}",
    )


if __name__ == "__main__":
    main()
