"""What linear layers as rings do to whole networks, and how long their search takes.

    python benchmarks/linear_layers.py --models alexnet,vgg16 --out docs/linear-layers.json

Seeded weights: convolutions have decaying spectra, linear layers are as torch draws them, whose
flat spectra are the worst that can be met; with --decay those of linear layers decay in the same
way. Each layer is searched at one ε_p by the paper's rule, first convolutions alone, then linear
layers too.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.measuring.stopwatch import machine
from rsdtr.models import load_model, model_spec
from rsdtr.planning import plan, profile


def decay(linear: nn.Linear) -> None:
    """Singular values exp(-6 k/(n-1)), k = 0…n-1, at the norm that the weight had."""
    weight = linear.weight.detach()
    wide = weight if len(weight) <= weight.shape[1] else weight.T
    squared, vectors = torch.linalg.eigh(wide @ wide.T)
    new = torch.exp(-6 * torch.linspace(1, 0, len(squared)))
    new *= wide.norm() / new.norm()
    factors = (vectors * (new / squared.clamp_min(1e-12).sqrt())) @ vectors.T
    with torch.no_grad():
        linear.weight.copy_((factors @ wide).reshape(wide.shape).T if wide is not weight
                            else factors @ wide)  # fmt: skip


def measured(name: str, eps: float, decayed: bool) -> dict[str, object]:
    """The numbers of one network: ratios, and for each linear layer what its search took."""
    model, spec = load_model(name, "none"), model_spec(name)
    if decayed:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                decay(module)
    costs = profile(model, spec)
    started = time.perf_counter()
    before = plan(costs, eps, layers="all")
    convolutions = time.perf_counter() - started
    rows = []
    for layer in costs.layers:
        if layer.kind == "linear":
            started = time.perf_counter()
            found = next(
                item for item in plan(costs, eps, layers=layer.name).layers
                if item.name == layer.name
            )  # fmt: skip
            rows.append(
                {
                    "layer": layer.name, "shape": layer.shape, "ranks": found.ranks,
                    "shift": found.shift, "stored": found.storage, "kept_dense": found.kept_dense,
                    "seconds": round(time.perf_counter() - started, 1),
                }
            )  # fmt: skip
            print(name, rows[-1], file=sys.stderr, flush=True)
    after = plan(costs, eps, layers="auto")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, on Linux
    return {
        "model": name, "eps": eps, "decayed": decayed, "params": before.params.original,
        "pcr_convolutions": round(before.pcr, 3), "pcr_all": round(after.pcr, 3),
        "fcr_convolutions": round(before.fcr, 3), "fcr_all": round(after.fcr, 3),
        "seconds_convolutions": round(convolutions, 1), "linear": rows,
        "peak_gb": round(peak / 1e6, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="alexnet,vgg16")
    parser.add_argument("--eps", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decay", action="store_true", help="linear layers' spectra decay as well")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    found = []
    for name in asked.models.split(","):
        found.append(measured(name, asked.eps, asked.decay))
        text = json.dumps({"machine": machine(), "threads": asked.threads, "networks": found})
        if asked.out is not None:
            asked.out.write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()
