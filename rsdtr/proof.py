"""The other side of an export: runs in a fresh process, reads a file back and compares.

    python -P proof.py FORMAT ARTEFACT CASES.safetensors ANSWER.json

CASES holds pairs inputs.K (B, C, H, W) and logits.K (B, classes), float32. Run as a file, not as a
module: only the safetensors format needs this program to be read back, and the proofs of .onnx and
.pt2 would be worth less if they had imported it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

Network = Callable[[Tensor], Tensor]


def network(form: str, artefact: Path) -> Network:
    """The exported file as a function from images (B, C, H, W) to logits (B, classes)."""
    if form == "onnx":
        return _onnx(artefact)
    if form == "pt2":
        return torch.export.load(artefact).module()
    if __package__ in (None, ""):
        sys.path.insert(0, str(Path(__file__).parents[1]))
    from rsdtr.saved import load

    return load(artefact.parent).model


def _onnx(artefact: Path) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {entry.name: images.numpy()})
        return torch.from_numpy(logits)

    return run


@torch.inference_mode()
def compared(run: Network, cases: dict[str, Tensor]) -> dict[str, float | int]:
    """Largest absolute difference of any logit, share of equal classes, and images compared."""
    largest, agreeing, n = 0.0, 0, 0
    for key in sorted(key for key in cases if key.startswith("inputs.")):
        expected = cases[key.replace("inputs.", "logits.")]
        logits = run(cases[key])
        if logits.shape != expected.shape:
            raise ValueError(f"logits are {tuple(logits.shape)}, not {tuple(expected.shape)}")
        difference = (logits - expected).abs().max().item()
        # max() would forget a NaN.
        largest = max(largest, difference) if difference == difference else float("inf")
        agreeing += int((logits.argmax(1) == expected.argmax(1)).sum())
        n += len(expected)
    return {"max_difference": min(largest, 1e38), "argmax_agreement": agreeing / n, "n": n}


def main(form: str, artefact: str, cases: str, answer: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    result = compared(network(form, Path(artefact)), load_file(cases))
    Path(answer).write_text(json.dumps(result, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
