"""timm's CNNs with random weights: planned, compressed and exported as ONNX, or the sentence.

    PYTHONPATH=. python benchmarks/timm_table.py --out docs/timm.json    # goes on where it ended
    PYTHONPATH=. python benchmarks/timm_table.py --out docs/timm.json --table    # what is known

One architecture of each family, mostly its smallest, each in a process of its own. Weights are
seeded and their convolutions have decaying spectra (`weights="none"`); nobody trained them.
Checked beside the export's own proof: that the plan's parameters are those that the compressed
network holds, that its MACs are those that torch's counter finds, that every ring is within its
ε_p, and that ONNX Runtime answers as the compressed network does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rsdtr.compressed import compress
from rsdtr.errors import RsdtrError
from rsdtr.exports import export
from rsdtr.measuring.stopwatch import machine
from rsdtr.models import load_model, model_spec
from rsdtr.planning import plan, profile

ARCHITECTURES = (
    "resnet18", "resnext26ts", "seresnet18", "skresnet18", "resnest14d", "res2net50_14w_8s",
    "resnetv2_18", "wide_resnet50_2", "ecaresnet26t", "botnet26t_256", "densenet121", "dla46_c",
    "dpn48b", "vgg11", "repvgg_a0", "vovnet39a", "ese_vovnet19b_slim_dw", "hgnetv2_b0",
    "cspdarknet53", "darknet17", "gernet_s", "regnetx_002", "regnety_002", "regnetz_005",
    "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "mobileone_s0",
    "efficientnet_lite0", "tf_efficientnetv2_b0", "mixnet_s", "mnasnet_small", "hardcorenas_a",
    "tinynet_e", "lcnet_050", "ghostnet_050", "repghostnet_050", "rexnet_100", "fasternet_t0",
    "starnet_s1", "selecsls42", "tresnet_m", "nfnet_l0", "inception_v3", "xception41",
    "hrnet_w18_small", "convnext_atto", "convnextv2_atto", "convmixer_768_32",
    "inception_next_atto", "edgenext_xx_small", "mobilevit_xxs", "fastvit_t8", "poolformer_s12",
    "focalnet_tiny_srf", "rdnet_tiny", "repvit_m0_9", "efficientvit_b0", "mambaout_femto",
    "visformer_tiny",
)  # fmt: skip
EPS = 0.6
SECONDS = 600  # for one architecture
HEADER = (
    "| architecture | input | layers | rings | params, M | PCR | FCR | ONNX, MB | differs by | s |"
)
STEPS = ("planned", "compressed", "exported")


def tried(name: str) -> dict[str, Any]:
    """What became of one architecture, step by step; a sentence where a step was refused."""
    row: dict[str, Any] = {"name": name}
    started = time.perf_counter()
    try:
        spec = model_spec(f"timm:{name}")
        model = load_model(spec.name, "none")
        row["size"] = list(spec.input_shape)
        costs = profile(model, spec)
        decided = plan(costs, EPS, layers="auto")
        row["planned"] = {
            "layers": len(decided.layers),
            "rings": sum(layer.ranks is not None for layer in decided.layers),
            "dense": sorted({x.kept_dense for x in decided.layers if x.kept_dense}),
            "params": decided.params.model_dump(), "macs": decided.macs.model_dump(),
            "pcr": round(decided.pcr, 3), "fcr": round(decided.fcr, 3),
            "not_counted": [part.reason for part in decided.not_counted],
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        row["wrong"] = _wrong_plan(model, spec.input_shape, decided)
        small = compress(model, decided).eval()
        row["compressed"] = sum(p.numel() for p in small.parameters())
        if row["compressed"] != decided.params.compressed:
            row["wrong"].append(
                f"{decided.params.compressed:,} parameters told, {row['compressed']:,} held"
            )
        images = torch.rand(8, *spec.input_shape, generator=torch.Generator().manual_seed(0))
        with TemporaryDirectory() as folder:
            (file,) = export(small, decided, images, ["onnx"], Path(folder, "out"))
            row["exported"] = {
                "bytes": file.bytes, "dense_bytes": file.dense_bytes,
                "difference": file.max_difference, "relative_error": file.relative_error,
            }  # fmt: skip
    except RsdtrError as error:
        row["sentence"] = str(error)
    except Exception:
        row["traceback"] = traceback.format_exc()
    row["seconds"] = round(time.perf_counter() - started, 1)
    return row


def _wrong_plan(model: torch.nn.Module, shape: tuple[int, ...], decided: Any) -> list[str]:
    """Numbers of a plan that do not agree with what counting gives."""
    found = []
    if (held := sum(p.numel() for p in model.parameters())) != decided.params.original:
        found.append(f"{decided.params.original:,} parameters told of {held:,}")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    told = decided.macs.original + sum(part.macs for part in decided.not_counted)
    if abs(told - (counted := counter.get_total_flops() // 2)) > 0.001 * counted:
        found.append(f"{told:,} MACs told, torch counts {counted:,}")
    found += [
        f"{layer.name} has a relative error of {layer.relative_error:.3f}"
        for layer in decided.layers
        if layer.relative_error > EPS * (1 + 1e-6)
    ]
    return found


def in_its_own_process(name: str) -> dict[str, Any]:
    """The row of one architecture, whatever becomes of the process that makes it."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name], capture_output=True, text=True,
            timeout=SECONDS, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"name": name, "sentence": f"not done within {SECONDS} s"}
    except subprocess.CalledProcessError as error:
        told = error.stderr[-2000:].strip() or f"its process ended with {error.returncode}"
        return {"name": name, "traceback": told}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [HEADER, "|" + "---|" * 10]
    for row in rows:
        planned = row.get("planned")
        if planned is None:
            lines.append(f"| {row['name']} | {_told(row)} |" + " |" * 8)
            continue
        params, exported = planned["params"], row.get("exported")
        size = "×".join(map(str, row["size"][1:]))
        if exported is None:
            files, differs = _told(row), ""
        else:
            files = f"{exported['dense_bytes'] / 1e6:.1f} → {exported['bytes'] / 1e6:.1f}"
            differs = f"{exported['difference']:.1e}"
        lines.append(
            f"| {row['name']} | {size} | {planned['layers']} | {planned['rings']} | "
            f"{params['original'] / 1e6:.2f} → {params['compressed'] / 1e6:.2f} | "
            f"{planned['pcr']:.2f} | {planned['fcr']:.2f} | {files} | {differs} | "
            f"{row['seconds']:.0f} |"
        )
    wrong = [f"{row['name']}: {what}" for row in rows for what in row.get("wrong", ())]
    counts = [sum(step in row for row in rows) for step in STEPS]
    told = ", ".join(f"{n} {step}" for n, step in zip(counts, STEPS, strict=True))
    lines += ["", f"Of {len(rows)} architectures: {told}; wrong numbers: {len(wrong)}.", *wrong]
    return "\n".join(lines)


def _told(row: dict[str, Any]) -> str:
    text = row.get("sentence") or row["traceback"].splitlines()[-1]
    return str(text).replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="rows that are kept, and gone on from")
    parser.add_argument("--names", default=",".join(ARCHITECTURES))
    parser.add_argument("--table", action="store_true", help="print what is known, measure nothing")
    parser.add_argument("--one", help="one architecture, in this process")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(tried(asked.one), ensure_ascii=False))
        return
    kept: dict[str, Any] = {"machine": machine(), "eps": EPS, "rows": []}
    if asked.out is not None and asked.out.is_file():
        kept = json.loads(asked.out.read_text(encoding="utf-8"))
    known = {row["name"]: row for row in kept["rows"]}
    names = asked.names.split(",")
    for name in names:
        if name in known or asked.table:
            continue
        known[name] = row = in_its_own_process(name)
        kept["rows"] = list(known.values())
        print(table([row]).splitlines()[2], file=sys.stderr, flush=True)
        if asked.out is not None:
            text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
            asked.out.write_text(text, encoding="utf-8")
    print(table([known[name] for name in names if name in known]))


if __name__ == "__main__":
    main()
