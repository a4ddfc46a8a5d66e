"""What the search costs as networks grow deeper and wider, and where its time goes.

    python benchmarks/growth.py [--models resnet18,…] [--eps 0.5] [--seconds 300] [--out FILE]

torchvision's networks with seeded weights of a decaying spectrum; the k×k kernels that the layer
policy `paper` compresses, each searched from nothing by the published rule, on one thread. Times
are processor time. A network whose searches take more than --seconds in all is ended there, and
its row says how many of its layers were searched. Two curves are fitted by least squares in
logarithms: a kernel's seconds against its scalars, and a network's against its scalars in
compressed kernels. --out: the rows as JSON, written after every network.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as watch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.search.paper_rule import KernelSpectra

MODELS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "vgg19",
    "densenet121", "convnext_tiny", "efficientnet_b0",
)  # fmt: skip
# What torch's profiler calls the work of a search; the rest is Python and the smaller operations.
PARTS = {
    "eigenvalues and SVDs": ("aten::_linalg_eigh", "aten::_linalg_svd"),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"),
}
WHOLE = "search"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--eps", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()  # as timeit does
    report: Row = {"machine": machine(), "eps": asked.eps, "networks": [], "layers": []}
    for name in asked.models.split(","):
        network, layers = searched(name, asked.eps, asked.seconds)
        report["networks"].append(network)
        report["layers"] += layers
        report["growth"] = growth(report)
        print(json.dumps(network), file=sys.stderr, flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(text_of(report))


def searched(name: str, eps: float, limit: float) -> tuple[Row, list[Row]]:
    """One network: a row for it, and one for each of its layers."""
    spec = model_spec(name)
    found = profile(load_model(name, "none"), spec)
    eligible = [x for x in found.layers if x.in_paper_policy and x.obstacle is None]
    grouped = sum(x.in_paper_policy and x.obstacle is not None for x in found.layers)
    rows: list[Row] = []
    for layer in eligible:
        rows.append({"network": name, "layer": layer.name} | searched_kernel(layer.kernel, eps))
        if sum(row["seconds"] for row in rows) > limit:
            break
    # The profiler would lengthen what was timed: it watches the dearest kernel once more.
    dearest = max(range(len(rows)), key=lambda k: rows[k]["seconds"], default=None)
    network = {
        "network": name, "layers": len(eligible), "searched": len(rows), "kept_dense": grouped,
        "scalars": sum(row["scalars"] for row in rows),
        "widest": max((max(row["shape"][:2]) for row in rows), default=0),
        "seconds": sum(row["seconds"] for row in rows),
        "computed": sum(row["computed"] for row in rows),
        "pruned": sum(row["pruned"] for row in rows),
        "time_goes_to": {} if dearest is None else shares(eligible[dearest].kernel, eps),
    }  # fmt: skip
    return network, rows


def searched_kernel(kernel: Tensor, eps: float) -> Row:
    start = time.process_time()
    result = KernelSpectra(kernel).best(eps)
    return {
        "shape": list(kernel.shape),
        "scalars": kernel.numel(),
        "seconds": time.process_time() - start,
        "computed": len(result.computed),
        "pruned": len(result.pruned),
    }


def shares(kernel: Tensor, eps: float) -> dict[str, float]:
    """The share of a search's time in each of PARTS, and in all the rest."""
    with watch(activities=[ProfilerActivity.CPU]) as watched, record_function(WHOLE):
        KernelSpectra(kernel).best(eps)
    own = {event.key: event.self_cpu_time_total for event in watched.key_averages()}
    total = sum(own.values())
    found = {part: sum(own.get(name, 0) for name in names) / total for part, names in PARTS.items()}
    return found | {"the rest": 1 - sum(found.values())}


def growth(report: Row) -> dict[str, float]:
    """Exponents b of seconds ∝ scalars^b, of kernels and of networks searched to their end."""
    whole = [row for row in report["networks"] if row["searched"] == row["layers"] > 0]
    return {"kernels": exponent(report["layers"]), "networks": exponent(whole)}


def exponent(rows: list[Row]) -> float:
    known = [(row["scalars"], row["seconds"]) for row in rows if row["seconds"] > 0]
    if len({scalars for scalars, _ in known}) < 2:
        return float("nan")
    logs = np.log(np.array(known))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def text_of(report: Row) -> str:
    lines = [f"{report['machine']}, one thread, ε_p {report['eps']:g}"]
    lines += [json.dumps(row) for row in report["networks"]]
    return "\n".join([*lines, f"growth: {json.dumps(report['growth'])}"])


if __name__ == "__main__":
    main()
