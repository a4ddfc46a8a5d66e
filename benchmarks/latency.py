"""What rings cost to run: networks at a given PCR, dense beside the paper's pipeline and `auto`.

    PYTHONPATH=. python benchmarks/latency.py [--models resnet18 …] [--parts network …] [--json]

Weights are seeded, with decaying spectra; ε_p is searched so that the network has the PCR asked
for. All variants of one comparison run in turns in one process. Ratios are of best times, which
suffer least from what else the machine does; medians stand beside them. With `--docs FOLDER` the
curve is written there as latency.svg, the layers of the largest batch as roofline.svg.
`latency_table.py` makes tables of the JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from latency_figure import curve_svg, roofline_svg
from paper_pipeline import paper_network
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.baselines.benchmark import network_forms, network_variants
from rsdtr.compressed.compress import skeleton
from rsdtr.compressed.fuse import fuse
from rsdtr.exports.onnx_export import onnx_file
from rsdtr.measuring.fastest_forms import layer_cases, measured_forms, use_forms
from rsdtr.measuring.layer_times import DeviceProfile, LayerCase
from rsdtr.measuring.stopwatch import (
    Work,
    interleaved,
    machine,
    peak_bytes,
    thread_count,
)
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import ModelSpec, model_spec
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import CompressionPlan, plan
from rsdtr.ring.cost import Size, form_activations, form_macs
from rsdtr.ring.forms import FORMS, Form, sublayers

PARTS = ("network", "layers", "training", "curve")
CURVE = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def planned(found: ModelProfile, target: float, layers: str) -> CompressionPlan:
    """The plan whose PCR is nearest to the target, of some that bisection over ε_p tries."""
    low, high, best = 0.02, 0.98, None
    for _ in range(12):
        middle = (low + high) / 2
        decided = plan(found, middle, layers=layers)
        if best is None or abs(decided.pcr - target) < abs(best.pcr - target):
            best = decided
        if abs(decided.pcr / target - 1) < 0.005:
            break
        low, high = (middle, high) if decided.pcr < target else (low, middle)
    assert best is not None
    return best


def ring_network(spec: ModelSpec, decided: CompressionPlan) -> nn.Module:
    """The compressed network with random cores: a time does not depend on them."""
    torch.manual_seed(0)
    network = skeleton(spec.build(), decided).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 3:
                parameter.normal_(std=0.05)
    return network


def forward(network: nn.Module, images: Tensor) -> Work:
    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def training_step(network: nn.Module, images: Tensor, labels: Tensor) -> Work:
    network.train()

    def run() -> None:
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()

    return run


def onnx_session(network: nn.Module, spec: ModelSpec, images: Tensor, count: int) -> Work:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count
    session = onnxruntime.InferenceSession(
        onnx_file(network, spec), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def compared(
    works: dict[str, Work], args: argparse.Namespace, **facts: object
) -> list[dict[str, Any]]:
    """A row per variant; `of_dense` and `of_paper` are ratios of best times."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    found = interleaved(works, runs=args.runs, seconds=args.seconds, clock=clock)
    rows = []
    for name, spread in found.items():
        row = facts | {"variant": name} | asdict(spread)
        for other in ("dense", "paper"):
            if other in found:
                row[f"of_{other}"] = spread.best_ms / found[other].best_ms
        rows.append(row)
        say(
            "  "
            + ", ".join(
                f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            )
        )
    return rows


def network_part(
    spec: ModelSpec, found: ModelProfile, decided: CompressionPlan, args: argparse.Namespace
) -> dict[str, Any]:
    dense = load_model(spec.name, "none")
    channels_last = copy.deepcopy(dense).to(memory_format=torch.channels_last)
    rows, ratio = [], 0.0
    for batch in args.batch:
        fast = measured_forms(decided, found, batch=batch, threads=args.threads)
        ratio = fast.fcr_run or 0.0
        images = torch.randn(batch, *spec.input_shape)
        ring = ring_network(spec, decided)
        made = network_variants(dense, ring, network_forms(ring, decided, found), fast)
        chosen = {name: made[name] for name in ("dense", "paper", "pipeline", "auto")}
        works = {name: forward(network, images) for name, network in chosen.items()}
        works["dense, channels-last"] = forward(channels_last, images)
        works["dense, fused"] = forward(fuse(channels_last), images)
        works["auto, fused"] = forward(fuse(made["auto"]), images)
        facts = {"scope": "network", "batch": batch}
        rows += compared(works, args, engine="eager", **facts)
        works = {
            name: onnx_session(made[name], spec, images, args.threads)
            for name in ("dense", "paper", "auto")
        }
        rows += compared(works, args, engine="onnxruntime", **facts)
    return {"fcr_run": ratio, "rows": rows}


def layers_part(
    spec: ModelSpec, found: ModelProfile, decided: CompressionPlan, args: argparse.Namespace
) -> dict[str, Any]:
    """The device profile's times as achieved GFLOP/s: the roofline of dense and of each form."""
    rows = []
    for batch in args.batch:
        measured_forms(decided, found, batch=batch, threads=args.threads)
        known = DeviceProfile.own()
        cases = layer_cases(decided, found, batch=batch, threads=args.threads)
        first = {case: name for name, case in reversed(cases.items())}
        for case, name in reversed(first.items()):
            times, layer = known.times(case), found.layer(name)
            assert times is not None
            for form in FORMS:
                sizes = layer.input_size, layer.output_size
                macs = batch * form_macs(form, case.shape, case.ranks, *sizes)
                scalars = _scalars_moved(form, case, *sizes)
                best = times.of(form).best_ms
                rows.append(
                    {
                        "layer": name,
                        "shape": case.shape,
                        "ranks": case.ranks,
                        "batch": batch,
                        "form": form,
                        "best_ms": best,
                        "of_dense": best / times.of("dense").best_ms,
                        "gflops_per_second": 2 * macs / best / 1e6,
                        "flops_per_byte": 2 * macs / (4 * scalars),
                        "auto": form == times.fastest.form,
                    }
                )
    worst = max(row["of_dense"] for row in rows if row["auto"])
    say(f"  the auto form of no layer takes more than {worst:.3f} of its dense time")
    with thread_count(args.threads):
        ceilings = _ceilings()
    return {"layers": rows, "worst_auto_of_dense": worst, "ceilings": ceilings}


def _scalars_moved(form: Form, case: LayerCase, input_size: Size, output_size: Size) -> int:
    """Scalars that a layer must read and write at least: pictures, what lies between, kernels."""
    o, i, _, _ = case.shape
    pictures = i * prod(input_size) + o * prod(output_size)
    between = 2 * form_activations(form, case.shape, case.ranks, input_size, output_size)
    kernels = sum(prod(step.kernel) for step in sublayers(form, case.shape, case.ranks))
    return case.batch * (pictures + between) + kernels


def _ceilings() -> dict[str, float]:
    """What the machine gives at best: a product of large matrices, and a copy of large memory."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    x = torch.zeros(1 << 26)
    y = torch.empty_like(x)
    found = interleaved({"product": lambda: a @ b, "copy": lambda: y.copy_(x)}, runs=15, seconds=20)
    return {
        "gflops_per_second": 2 * 2048**3 / found["product"].best_ms / 1e6,
        "gigabytes_per_second": 2 * x.nbytes / found["copy"].best_ms / 1e6,
    }


def training_part(
    spec: ModelSpec, found: ModelProfile, decided: CompressionPlan, args: argparse.Namespace
) -> dict[str, Any]:
    batch = args.training_batch
    fast = measured_forms(decided, found, batch=batch, threads=args.threads, training=True)
    ring = ring_network(spec, decided)
    auto = copy.deepcopy(ring)
    use_forms(auto, fast)
    images = torch.randn(batch, *spec.input_shape)
    labels = torch.arange(batch) % spec.classes
    networks = {
        "dense": load_model(spec.name, "none"),
        "paper": paper_network(ring),
        "pipeline": copy.deepcopy(ring),
        "auto": auto,
    }
    works = {name: training_step(network, images, labels) for name, network in networks.items()}
    facts = {"scope": "training step", "batch": batch}
    rows = compared(works, args, engine="eager", **facts)
    for row in rows:
        row["peak_bytes"] = peak_bytes(works[row["variant"]])
        say(f"  {row['variant']}: peak {row['peak_bytes']:,} bytes of live tensors")
    return {"training": rows}


def curve_part(
    spec: ModelSpec, found: ModelProfile, unused: CompressionPlan, args: argparse.Namespace
) -> dict[str, Any]:
    dense, points = load_model(spec.name, "none"), []
    for batch in args.batch:
        images = torch.randn(batch, *spec.input_shape)
        for target in CURVE:
            decided = planned(found, target, args.layers)
            fast = measured_forms(decided, found, batch=batch, threads=args.threads)
            auto = ring_network(spec, fast)
            use_forms(auto, fast)
            works = {"dense": forward(dense, images), "auto": forward(auto, images)}
            (_, row) = compared(works, args, batch=batch)
            points.append(
                {"batch": batch, "eps": decided.eps, "pcr": decided.pcr, "fcr": decided.fcr,
                 "fcr_run": fast.fcr_run, "of_dense": row["of_dense"]}
            )  # fmt: skip
    return {"curve": points}


Part = Callable[[ModelSpec, ModelProfile, CompressionPlan, argparse.Namespace], dict[str, Any]]
WORK: dict[str, Part] = {
    "network": network_part,
    "layers": layers_part,
    "training": training_part,
    "curve": curve_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawTextHelpFormatter
    option = parser.add_argument
    option("--models", nargs="+", default=["resnet18"])
    option("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    option("--pcr", type=float, default=3.5)
    option("--layers", default="paper", help="paper or all; only all reaches 3.5 on a ResNet-50")
    option("--plan", type=Path, help="a plan's JSON, instead of a search for --pcr")
    option("--batch", type=lambda text: [int(n) for n in text.split(",")], default=[1, 16])
    option("--training-batch", type=int, default=8)
    option("--threads", type=int, default=2)
    option("--runs", type=int, default=15)
    option("--seconds", type=float, default=60, help="of one comparison, at most")
    option("--cpu-time", action="store_true", help="of one thread, on a machine that is busy")
    option("--docs", type=Path, help="folder for latency.json and latency.svg")
    option("--json", action="store_true")
    args = parser.parse_args()
    if args.cpu_time and args.threads != 1:
        parser.error("--cpu-time tells of one thread: give --threads 1")
    result: dict[str, Any] = {
        "machine": machine(), "onnxruntime": onnxruntime.__version__, "threads": args.threads,
        "cpu_time": args.cpu_time, "runs": args.runs, "models": [],
    }  # fmt: skip
    say(f"{result['machine']}, onnxruntime {onnxruntime.__version__}, {args.threads} threads")
    for name in args.models:
        spec = model_spec(name)
        found = profile(load_model(name, "none"), spec)
        with thread_count(args.threads):
            decided = (
                CompressionPlan.from_json(args.plan.read_text(encoding="utf-8"))
                if args.plan
                else planned(found, args.pcr, args.layers)
            )
            say(f"{name}: ε_p {decided.eps:.4f}, PCR {decided.pcr:.3f}, FCR {decided.fcr:.3f}")
            entry: dict[str, Any] = {
                "model": name, "eps": decided.eps, "pcr": decided.pcr, "fcr": decided.fcr,
            }  # fmt: skip
            for part in args.parts:
                say(f" {part}")
                entry |= WORK[part](spec, found, decided, args)
        result["models"].append(entry)
    text = json.dumps(result, indent=1, allow_nan=False)
    if args.docs:
        args.docs.mkdir(parents=True, exist_ok=True)
        for entry in result["models"]:
            about = entry["model"], result["machine"]
            if "curve" in entry:
                picture = curve_svg(entry["curve"], *about)
                (args.docs / "latency.svg").write_text(picture, encoding="utf-8")
            if "layers" in entry:
                rows = [row for row in entry["layers"] if row["batch"] == max(args.batch)]
                picture = roofline_svg(rows, entry["ceilings"], *about)
                (args.docs / "roofline.svg").write_text(picture, encoding="utf-8")
    if args.json:
        print(text)


if __name__ == "__main__":
    main()
