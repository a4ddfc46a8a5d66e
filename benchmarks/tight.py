"""What rule=tight stores, beside the published rule, on the published CIFAR-10 ResNets.

    python benchmarks/tight.py [--models cifar10_resnet20,cifar10_resnet56] [--eps 0.3,0.5,0.6,0.7]

For all convolutions that the layer policy `paper` compresses together: storage of the published
rule, of the tight one at the same ε_p, and of the tight one where each layer's ε_p is the relative
error that the published rule achieved there. Weights from RSDTR_WEIGHTS.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.ring.rank_selection import MINIMUM_EPS
from rsdtr.search.tight_rule import best_tight


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="cifar10_resnet20,cifar10_resnet56")
    parser.add_argument("--eps", default="0.3,0.5,0.6,0.7")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print("model              ε_p   paper    tight    same error  gain     gain at the same error")
    for model in asked.models.split(","):
        spec = model_spec(model)
        layers = [x for x in profile(load_model(model), spec).layers if x.in_paper_policy]
        for eps in map(float, asked.eps.split(",")):
            paper = tight = equal = 0
            for layer in layers:
                published = layer.spectra.best(eps).winner
                achieved = max(MINIMUM_EPS, published.relative_error * (1 + 1e-9))
                paper += published.storage
                tight += best_tight(layer.spectra, eps).winner.storage
                # The published ring has that error itself, so no worse one need be taken.
                equal += min(best_tight(layer.spectra, achieved).winner.storage, published.storage)
            print(
                f"{model:18} {eps:.2f}  {paper:7,}  {tight:7,}  {equal:9,}   "
                f"{100 * (1 - tight / paper):5.1f} %  {100 * (1 - equal / paper):5.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
