"""The other side of an export: runs in a fresh process, reads a file back and compares.

    python -P proof_process.py FORMAT ARTEFACT CASES.safetensors ANSWER.json THREADS RESIZED

CASES holds inputs (n, C, H, W) and logits (n, classes, …), float32, and whether there are classes;
they are run one by one and in fives. With RESIZED (1, else 0) two of another height and width, too.

Run as a file, not as a module: only the safetensors format needs this program to be read back, and
the proofs of the others would be worth less if they had imported it. They cannot: it is made
unimportable there, and torchvision with it. Nor has the server that the process may be a fork of:
it has imported torch and safetensors, and seen no model.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

Network = Callable[[Tensor], Tensor]
BATCHES = (1, 5)


def network(form: str, artefact: Path) -> Network:
    """The exported file as a function from images (B, C, H, W) to logits (B, classes, …).

    Of a network that answers boxes, to the numbers that they are chosen by.
    """
    if form in ("onnx", "int8"):
        return _onnx(artefact)
    if form == "python":
        return _python(artefact)
    if form == "pt2":
        return torch.export.load(artefact).module()
    if __package__ in (None, ""):
        sys.path.insert(0, str(Path(__file__).parents[2]))
    from rsdtr.compressed.saved import load
    from rsdtr.models.outputs import compared_output

    model = load(artefact.parent).model
    return lambda images: compared_output(model, images)


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


def _python(artefact: Path) -> Network:
    specification = importlib.util.spec_from_file_location("rsdtr_model", artefact)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    network: Network = module.load(artefact.with_name("model.safetensors"))
    return network


def _class(answer: Tensor) -> Tensor:
    """The class that (n, classes, …) says, and of one number, (n,) or (n, 1), its sign."""
    return answer.argmax(1) if answer.ndim > 1 and answer.shape[1] > 1 else answer > 0


@torch.inference_mode()
def compared(
    run: Network, cases: dict[str, Tensor], resized: bool = False
) -> dict[str, float | int | list[int] | None]:
    """Largest and mean absolute difference of a logit, the share of images, or of their pixels,
    whose class is the same in every batch size (None without classes), how many images were
    compared, the relative errors of a `manifest.Proof`, and the other height and width.
    """
    inputs, expected = cases["inputs"], cases["logits"]
    has_classes = bool(cases.get("classes", True))
    classes = _class(expected) if has_classes else None
    differences, agreeing = [], []
    for batch in BATCHES:
        parts = []
        for images in inputs.split(batch):
            logits = run(images.clone())  # it may write into them
            wanted = (len(images), *expected.shape[1:])
            if logits.shape != wanted:
                raise ValueError(f"logits are {tuple(logits.shape)}, not {wanted}")
            parts.append(logits)
        found = torch.cat(parts)
        differences.append((found - expected).abs())
        if classes is not None:
            agreeing.append(_class(found) == classes)
    other = None
    if resized:
        right, answered = cases["resized_logits"], run(cases["resized"].clone())
        if answered.shape != right.shape:
            raise ValueError(f"logits are {tuple(answered.shape)}, not {tuple(right.shape)}")
        other = (answered - right).abs()
    # NaN is no number of JSON's, and no agreement.
    all_of_them = torch.cat(differences).nan_to_num(nan=1e38, posinf=1e38).clamp(max=1e38)
    largest = all_of_them.max()
    if other is not None:
        largest = max(largest, other.nan_to_num(nan=1e38, posinf=1e38).clamp(max=1e38).max())
    return {
        "max_difference": largest.item(),
        "mean_difference": all_of_them.double().mean().item(),
        "argmax_agreement": torch.stack(agreeing).all(0).double().mean().item()
        if agreeing
        else None,
        "n": len(inputs),
        "relative_error": _relative(all_of_them, expected),
        "residual_error": _relative(all_of_them, inputs - expected)
        if not has_classes and inputs.shape == expected.shape
        else None,
        "also_at": None if other is None else list(cases["resized"].shape[2:]),
    }


def _relative(off: Tensor, of: Tensor) -> float:
    """Mean over images of ‖off‖/‖of‖; off: that of every batch size, one after the other."""
    wrong = off.double().flatten(1) if off.ndim > 1 else off.double()[:, None]
    whole = of.double().flatten(1) if of.ndim > 1 else of.double()[:, None]
    norms = torch.linalg.vector_norm(whole, dim=1).repeat(len(BATCHES))
    off_by = torch.linalg.vector_norm(wrong, dim=1)
    ratios = torch.where(off_by == 0, 0.0, off_by / norms)
    return ratios.nan_to_num(1e38, 1e38).clamp(max=1e38).mean().item()


def main(form: str, artefact: str, cases: str, answer: str, threads: str, resized: str) -> None:
    torch.set_num_threads(int(threads))
    if form != "safetensors":
        sys.modules |= {"rsdtr": None, "torchvision": None}  # type: ignore[dict-item]
    result = compared(network(form, Path(artefact)), load_file(cases), resized == "1")
    Path(answer).write_text(json.dumps(result, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
