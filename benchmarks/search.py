"""The pruned search against the exhaustive one: same process, same threads, same winner.

    python benchmarks/search.py [--sets resnet18,resnet50,cifar] [--eps 0.3,0.5,0.7] [--threads 2]
                                [--growth] [--json]

Kernel sets: the 3×3 kernels of torchvision's ResNet-18 and ResNet-50 with seeded weights of a
decaying spectrum, and the published CIFAR-10 ResNet-20 and -56 (from RSDTR_WEIGHTS). `seconds` is a
search from nothing, everything that no ε_p changes included; `seconds_warm` the same with that part
kept from another ε_p, as when a slider moves. The exhaustive search has its first SVD once per
shift, and rebuilds no kernel. --growth: seconds against channels and
depth instead.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import decaying_spectrum_
from rsdtr.search.paper_rule import KernelSpectra
from tests.support.oracles import exhaustive

Row = dict[str, Any]
SETS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "resnet18": (("resnet18", "none"),),
    "resnet50": (("resnet50", "none"),),
    "cifar": (("cifar10_resnet20", None), ("cifar10_resnet56", None)),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default="resnet18,cifar")
    parser.add_argument("--eps", default="0.3,0.5,0.7")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    gc.disable()  # as timeit does: a collection takes longer than a search of a small kernel
    eps = [float(text) for text in asked.eps.split(",")]
    if asked.growth:
        report = {"machine": machine(), "threads": asked.threads, **growth(eps)}
    else:
        rows = [row for name in asked.sets.split(",") for row in compared(name, eps)]
        report = {"machine": machine(), "threads": asked.threads, "rows": rows} | summary(rows)
    print(json.dumps(report, indent=1) if asked.json else text_of(report))


def _now() -> float:
    """Seconds: of this process's CPU with one thread, which other work disturbs less, else wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def kernels(model: str, weights: str | None) -> Iterator[tuple[str, Tensor]]:
    """The 3×3 kernels that the layer policy `paper` compresses."""
    for position, (name, conv) in enumerate(
        (name, module)
        for name, module in load_model(model, weights).named_modules()
        if isinstance(module, nn.Conv2d)
    ):
        if position and conv.kernel_size == (3, 3):
            yield f"{model}.{name}", conv.weight.detach()


def compared(name: str, eps: list[float]) -> Iterator[Row]:
    for model, weights in SETS[name]:
        for layer, kernel in kernels(model, weights):
            warm = KernelSpectra(kernel)
            warm.best(0.4)
            for bound in eps:
                start = _now()
                found = KernelSpectra(kernel).best(bound).winner
                middle = _now()
                warm.best(bound)
                end = _now()
                others = exhaustive(kernel.double(), bound, with_error=False)
                seconds_exhaustive = _now() - end
                shift, r0, ranks, storage, _ = min(others, key=lambda item: item[3])
                say(f"{layer} ε_p {bound}: {seconds_exhaustive / (middle - start):.1f}×")
                yield {
                    "set": model,
                    "layer": layer,
                    "shape": list(kernel.shape),
                    "eps": bound,
                    "seconds_exhaustive": seconds_exhaustive,
                    "seconds": middle - start,
                    "seconds_warm": end - middle,
                    "same_winner": (found.shift, found.r0, found.ranks, found.storage)
                    == (shift, r0, ranks, storage),
                }


def summary(rows: list[Row]) -> dict[str, object]:
    def ratios(of: list[Row], key: str) -> dict[str, float]:
        each = [row["seconds_exhaustive"] / row[key] for row in of]
        total = sum(row["seconds_exhaustive"] for row in of) / sum(row[key] for row in of)
        return {"median": statistics.median(each), "total": total}

    sets = {name: [row for row in rows if row["set"] == name] for name in {r["set"] for r in rows}}
    overall = ratios(rows, "seconds")
    return {
        "median_ratio": overall["median"],
        "total_ratio": overall["total"],
        "by_set": {name: ratios(of, "seconds") for name, of in sorted(sets.items())},
        "by_set_warm": {name: ratios(of, "seconds_warm") for name, of in sorted(sets.items())},
        "different_winners": sum(not row["same_winner"] for row in rows),
    }


def growth(eps: list[float]) -> dict[str, object]:
    """Seconds of one search by channels, and of a network's k×k kernels by depth, mean over ε_p."""
    channels = {}
    for width in (64, 128, 256, 512):
        torch.manual_seed(0)
        conv = nn.Conv2d(width, width, 3)
        decaying_spectrum_(conv)
        channels[width] = seconds_of([conv.weight.detach()], eps)
        say(f"{width} channels: {channels[width]:.3f} s")
    depth = {}
    for model in ("resnet18", "resnet34", "resnet50", "resnet101"):
        depth[model] = seconds_of([kernel for _, kernel in kernels(model, "none")], eps)
        say(f"{model}: {depth[model]:.2f} s")
    return {"seconds_by_channels": channels, "seconds_by_depth": depth}


def seconds_of(found: list[Tensor], eps: list[float]) -> float:
    start = _now()
    for kernel in found:
        for bound in eps:
            KernelSpectra(kernel).best(bound)
    return (_now() - start) / len(eps)


def text_of(report: dict[str, Any]) -> str:
    lines = [f"{report['machine']}, {report['threads']} threads"]
    for key, value in report.items():
        if key not in ("machine", "threads", "rows"):
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
