"""What an exported file must compute, and the process that finds out whether it does."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from rsdtr.compressed.manifest import Proof
from rsdtr.data.image_sets import LabelledImages
from rsdtr.errors import ExportError
from rsdtr.models.outputs import compared_output
from rsdtr.models.zoo import Task
from rsdtr.ring.cost import Size
from rsdtr.system.processes import TORCH, prepare, quiet, run

TOLERANCE = 1e-4  # of a float32 logit
INT8_AGREEMENT = 0.9  # of the classes: eight bits move every logit
INT8_ERROR = 0.1  # of the answers, where there are no classes
INT8_RESIDUAL = 0.3  # of what a network changes in a picture
PROOF_IMAGES = 64
LARGE_IMAGES = 5  # where every pixel, or every anchor, has an answer
PROOF = Path(__file__).with_name("proof_process.py")
PROOF_SECONDS = 900
_BATCH = 16


def _has_classes(task: Task, inputs: Tensor, answers: Tensor) -> bool:
    """Whether answers tell classes apart, rather than being numbers or pictures of their own."""
    if task != "other":
        return True
    several = answers.ndim > 1 and answers.shape[1] > 1
    return several and not (answers.ndim == 4 and answers.shape[1] == inputs.shape[1])


@torch.inference_mode()
def write_cases(
    network: nn.Module, images: LabelledImages, path: Path, other_size: Size | None = None
) -> float:
    """Write 64 inputs and their logits, or 5 of a network that tells more than classes; returns the
    difference that a logit may show.

    other_size: a height and width that two of them are resized to as well. Few pictures are used
    again. ExportError for no pictures, or logits that are not finite.
    """
    if len(images) == 0:
        raise ExportError("there are no images to prove the export on: give at least one")
    count = PROOF_IMAGES if images.spec.task == "classification" else LARGE_IMAGES
    whole = images.first(count)
    if len(whole) == 0:
        raise ExportError(f"no picture of {images.name} can be decoded: give at least one that can")
    inputs = whole.inputs([index % len(whole) for index in range(count)]).contiguous()
    logits = torch.cat([compared_output(network, part) for part in inputs.split(_BATCH)])
    classes = torch.tensor(_has_classes(images.spec.task, inputs, logits))
    cases = {"inputs": inputs, "logits": logits, "classes": classes}
    if other_size is not None:
        resized = F.interpolate(inputs[:2], other_size, mode="bilinear")
        cases |= {"resized": resized, "resized_logits": compared_output(network, resized)}
    path.write_bytes(save(cases))
    if not logits.isfinite().all():
        raise ExportError(
            "the model answers real images with NaN or infinite logits: recover it, or compress "
            "it at a smaller ε_p, before exporting it"
        )
    return max(TOLERANCE, 1e-6 * logits.abs().max().item())


def prepare_proofs() -> None:
    """Have torch imported beside what comes first: the proofs then wait for nothing."""
    prepare(TORCH, quiet())


def proved(form: str, path: Path, cases: Path, bound: float, *, resized: bool = False) -> Proof:
    """Have a fresh process read `path` back; its answer, if all logits are within `bound`, those of
    other sizes as well where it takes them (`resized`).

    It has imported torch before, and seen nothing of the network. int8 is held to its classes
    instead, or where there are none to the relative error of its answers and of what it changes in
    a picture. ExportError for anything else.
    """
    answer_path = cases.with_name("answer.json")
    answer_path.unlink(missing_ok=True)
    command = [sys.executable, "-P", str(PROOF), form, str(path), str(cases), str(answer_path)]
    try:
        ended = run(
            [*command, str(torch.get_num_threads()), str(int(resized))],
            PROOF_SECONDS,
            environment=quiet(),
            imports=TORCH,
        )
    except TimeoutError:
        raise ExportError(
            f"the proof of the {form} file took more than {PROOF_SECONDS} s and nothing was kept: "
            "try another format"
        ) from None
    if ended.code != 0 or not answer_path.is_file():
        last = (ended.said.strip().splitlines() or [f"exit code {ended.code}"])[-1]
        raise ExportError(
            f"the {form} file could not be read back and run ({last}) and nothing was kept: "
            "try another format"
        )
    answer = Proof.model_validate_json(answer_path.read_bytes())
    if form == "int8":
        _check_int8(answer)
    elif not answer.max_difference < bound:
        raise ExportError(
            f"the {form} file computes something else: its logits differ by up to "
            f"{answer.max_difference:.2g} where less than {bound:.2g} was expected, and nothing "
            "was kept: try another format"
        )
    return answer


def _check_int8(answer: Proof) -> None:
    """ExportError for a file in eight bits that lost too much."""
    kept, error, change = answer.argmax_agreement, answer.relative_error, answer.residual_error
    if kept is not None:
        if kept < INT8_AGREEMENT:
            raise ExportError(
                f"in eight bits {100 * kept:.0f} % of the classes stay, less than "
                f"{100 * INT8_AGREEMENT:.0f} %, and nothing was kept: export it as onnx"
            )
    elif error is None or error > INT8_ERROR:
        raise ExportError(
            f"in eight bits the answers are off by {100 * (error or 1):.0f} %, more than "
            f"{100 * INT8_ERROR:.0f} %, and nothing was kept: export it as onnx"
        )
    elif change is not None and change > INT8_RESIDUAL:
        raise ExportError(
            f"in eight bits what the network changes in a picture is off by {100 * change:.0f} %, "
            f"more than {100 * INT8_RESIDUAL:.0f} %, and nothing was kept: export it as onnx"
        )
