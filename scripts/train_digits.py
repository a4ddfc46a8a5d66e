"""Trains the bundled digits_resnet20 with the project's own trainer and writes its weights.

    python scripts/train_digits.py [FILE]

Takes about a minute on two cores. The file is written to rsdtr/assets/ unless FILE is given.
"""

import hashlib
import sys
import time
from pathlib import Path

import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, not installed

from rsdtr.data.datasets import load_data
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.model_loading import ASSETS
from rsdtr.models.zoo import model_spec
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions

LEAST_PERCENT = 97.0


def main(path: Path) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    spec = model_spec("digits_resnet20")
    data = load_data("digits", spec)
    model = spec.build()
    # Ten times the usual weight decay: on so little data it costs nothing, and the kernels get the
    # decaying spectra that long training gives a network on CIFAR-10.
    options = FinetuneOptions(epochs=30, lr=0.1, weight_decay=5e-3, batch_size=32, seed=0)
    start = time.perf_counter()
    for result in finetune(model, data, options):
        print(
            f"epoch {result.epoch:2}/{result.epochs}  loss {result.train_loss:.4f}  "
            f"validation {result.validation.percent:.2f} %  {result.seconds:.1f} s"
        )
    reached = accuracy(model, data.test)
    low, high = reached.interval
    print(
        f"test {reached.percent:.2f} % ({low:.2f} to {high:.2f}, n = {reached.n}) "
        f"after {time.perf_counter() - start:.0f} s"
    )
    if reached.percent < LEAST_PERCENT:
        sys.exit(f"below {LEAST_PERCENT} %: nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(model.state_dict(), path)
    print(f"{path}: SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS / "digits_resnet20.safetensors")
