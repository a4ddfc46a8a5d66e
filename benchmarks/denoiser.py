"""What rings and a refit leave of a denoiser: PSNR and SSIM on photographs that it never saw.

    python benchmarks/denoiser.py [--pcr 2,3] [--refit 64] [--test 24] [--json]

The network is that of scripts/train_denoiser.py: six 3×3 convolutions, no BatchNorm, no classes.
Compressed at a target PCR by the published rule, then refit without targets: on noisy crops of the
photographs' left two thirds, to what the dense network answers. Tested on crops of the right third.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train_denoiser import SIDE, denoiser, noisy_photos

from rsdtr.compressed.compress import compress
from rsdtr.data.image_sets import LabelledImages
from rsdtr.data.image_sources import ArrayPictures
from rsdtr.measuring.fidelity import fidelity
from rsdtr.measuring.picture_quality import picture_quality
from rsdtr.models.zoo import ModelSpec, own_model
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import Target
from rsdtr.recovery.refit import refit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pcr", default="2,3")
    parser.add_argument("--refit", type=int, default=64)
    parser.add_argument("--test", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    spec = own_model("denoiser", denoiser, (3, SIDE, SIDE), 3, task="other")
    dense = denoiser()
    costs = profile(dense, spec)
    given, clean = noisy_photos(held_out=True, n=asked.test)
    images, targets = (_set(pixels, spec) for pixels in (given, clean))
    learnt = _set(noisy_photos(held_out=False, n=asked.refit)[0], spec)
    rows: list[dict[str, object]] = []

    def add(stage: str, pcr: float, network: nn.Module, seconds: float) -> None:
        reached = picture_quality(network, images, targets)
        alike = fidelity(network, dense, images)
        rows.append(
            {"stage": stage, "pcr": round(pcr, 3), "psnr": round(reached.psnr, 2),
             "ssim": round(reached.ssim, 4), "residual_error": round(alike.residual_error or 0, 3),
             "seconds": round(seconds, 1)}
        )  # fmt: skip

    add("noisy", 1.0, nn.Identity(), 0.0)
    add("dense", 1.0, dense, 0.0)
    for value in map(float, asked.pcr.split(",")):
        plan = Choices(target=Target(kind="pcr", value=value)).decide(costs)
        network = compress(dense, plan)
        add("compressed", plan.pcr, network, 0.0)
        started = time.perf_counter()
        recovered = refit(network, dense, learnt, asked.refit).model
        add("refit", plan.pcr, recovered, time.perf_counter() - started)
    if asked.json:
        print(json.dumps({"test": asked.test, "refit": asked.refit, "rows": rows}, indent=1))
        return
    print("stage        PCR     PSNR (dB)   SSIM     error of what it changes   seconds")
    for row in rows:
        print(
            f"{row['stage']:11}  {row['pcr']:.3f}   {row['psnr']:6.2f}   {row['ssim']:.4f}   "
            f"{row['residual_error']:10.3f}   {row['seconds']:17.1f}"
        )


def _set(pixels: Tensor, spec: ModelSpec) -> LabelledImages:
    nothing = torch.full((len(pixels),), -1)
    return LabelledImages("photographs", (), nothing, ArrayPictures(pixels), spec)


if __name__ == "__main__":
    main()
