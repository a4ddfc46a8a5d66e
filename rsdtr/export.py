"""Handing a compressed model out: files that another process has read back and found equal."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import Tensor, nn

from rsdtr.data import LabelledImages
from rsdtr.errors import ExportError, UnknownName
from rsdtr.evaluate import saved_bytes
from rsdtr.fuse import fuse
from rsdtr.plan import CompressionPlan
from rsdtr.saved import MANIFEST, Saved, is_saved, load, save, write_into
from rsdtr.zoo import ModelSpec, model_spec

__all__ = ["FORMATS", "Artefact", "Saved", "export", "load", "save"]

FORMATS = ("safetensors", "onnx", "pt2")
TOLERANCE = 1e-4  # of a float32 logit
BATCHES = (1, 5, 64)
OPSET = 20
PROOF = Path(__file__).with_name("proof.py")
PROOF_SECONDS = 900

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Artefact:
    """A proved file. bytes: its size; dense_bytes: that of the dense model exported the same way
    (None for pt2); max_difference, argmax_agreement (a share): over the logits of n images;
    seconds: to write and prove it. The manifest lies beside a safetensors file.
    """

    format: str
    path: Path
    bytes: int
    dense_bytes: int | None
    max_difference: float
    argmax_agreement: float
    n: int
    seconds: float


class _Answer(BaseModel):
    """What the proving process wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_difference: float
    argmax_agreement: float
    n: int


def export(
    model: nn.Module,
    plan: CompressionPlan,
    images: LabelledImages,
    formats: Sequence[str],
    out: str | Path,
    *,
    metrics: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> list[Artefact]:
    """Write `model` (compressed by `plan`) into the folder `out` as model.<format>, in float32.

    Each file is read back in a fresh process, run on real images in batches of 1, 5 and 64 and
    compared with the model in memory. All files appear together, after the last proof: a logit
    off by 1e-4 or more (or by 1e-6 of the largest logit, if that is more: what float32 resolves)
    is an ExportError and leaves nothing. onnx and pt2 take any batch; onnx is one file. They hold
    the fused network, plain convolutions in the forms of `model`; safetensors holds the cores.
    progress: called with (steps done, steps in all). UnknownName for a format not in FORMATS.
    """
    chosen = _checked_formats(formats)
    if images.spec.name != plan.model:
        raise ExportError(
            f"the images are prepared for {images.spec.name}, the plan is for {plan.model}: "
            f"load them with model_spec({plan.model!r})"
        )
    network = copy.deepcopy(model).eval().requires_grad_(False).float().cpu()
    spec = model_spec(plan.model)
    graph = cache(lambda: _program(fuse(network), spec))
    folder = _folder(out, chosen)
    artefacts = []
    with _workplace(folder) as temporary:
        cases = temporary / "cases.safetensors"
        bound = _write_cases(network, images, cases)
        for position, form in enumerate(chosen):
            _tell(progress, 2 * position, 2 * len(chosen))
            started = time.perf_counter()
            path = temporary / f"model.{form}"
            if form == "safetensors":
                write_into(temporary, network, plan, metrics)
            elif form == "onnx":
                path.write_bytes(_onnx(graph()))
            else:
                torch.export.save(graph(), path)
            dense_bytes = _dense_bytes(form, spec)
            _tell(progress, 2 * position + 1, 2 * len(chosen))
            answer = _proved(form, path, cases, bound)
            artefacts.append(
                Artefact(
                    format=form,
                    path=folder / path.name,
                    bytes=path.stat().st_size,
                    dense_bytes=dense_bytes,
                    max_difference=answer.max_difference,
                    argmax_agreement=answer.argmax_agreement,
                    n=answer.n,
                    seconds=time.perf_counter() - started,
                )
            )
        for name in [artefact.path.name for artefact in artefacts] + [MANIFEST]:
            if (temporary / name).exists():
                os.replace(temporary / name, folder / name)
    _tell(progress, 2 * len(chosen), 2 * len(chosen))
    return artefacts


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, which is made if need be, and unmade if still empty."""
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise ExportError(
            f"{folder} could not be written ({error.strerror or error}): give another folder"
        ) from error
    finally:
        if created and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _tell(progress: Progress | None, done: int, steps: int) -> None:
    if progress:
        progress(done, steps)


def _checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    if not formats:
        raise ExportError(f"no format was given: choose from {', '.join(FORMATS)}")
    for form in formats:
        if form not in FORMATS:
            raise UnknownName(f"{form!r} is no format: choose from {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


def _folder(out: str | Path, formats: Sequence[str]) -> Path:
    folder = Path(out).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file: give the name of a folder")
    if "safetensors" in formats and (folder / MANIFEST).exists() and not is_saved(folder):
        raise ExportError(
            f"{folder / MANIFEST} belongs to something else and would be lost: give another folder"
        )
    return folder


@torch.inference_mode()
def _write_cases(network: nn.Module, images: LabelledImages, path: Path) -> float:
    """Inputs and logits for every batch size; returns the difference that a logit may show."""
    if len(images) == 0:
        raise ExportError("there are no images to prove the export on: give at least one")
    cases: dict[str, Tensor] = {}
    first = 0
    for batch in BATCHES:
        # Few pictures are used again: what must vary is the batch size.
        indices = [index % len(images) for index in range(first, first + batch)]
        inputs = images.spec.normalise(images.pixels(indices))
        cases[f"inputs.{batch}"] = inputs.contiguous()
        cases[f"logits.{batch}"] = network(inputs).contiguous()
        first += batch
    save_file(cases, path)
    logits = torch.cat([cases[f"logits.{batch}"] for batch in BATCHES])
    if not logits.isfinite().all():
        raise ExportError(
            "the model answers real images with NaN or infinite logits: recover it, or compress "
            "it at a smaller ε_p, before exporting it"
        )
    return max(TOLERANCE, 1e-6 * logits.abs().max().item())


@cache
def _dense_bytes(form: str, spec: ModelSpec) -> int | None:
    """What the dense model takes in that format; None for pt2, which is not worth the time."""
    if form == "safetensors":
        return saved_bytes(_dense(spec))
    return len(onnx_file(_dense(spec), spec)) if form == "onnx" else None


def _dense(spec: ModelSpec) -> nn.Module:
    """The uncompressed architecture; its values do not matter, but no two tensors may be equal,
    because the ONNX optimiser would store them once.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = spec.build().eval().requires_grad_(False)
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return model


def onnx_file(network: nn.Module, spec: ModelSpec) -> bytes:
    """The network, fused, as one ONNX file: `images` (batch, C, H, W) to `logits`."""
    return _onnx(_program(fuse(network), spec))


def _program(network: nn.Module, spec: ModelSpec) -> torch.export.ExportedProgram:
    """The network as a graph that takes any batch."""
    # The example is stored in a .pt2: it must be nobody's picture. Two, not one: torch.export
    # takes a batch of one for a constant.
    example = torch.zeros(2, *spec.input_shape)
    try:
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{spec.name} cannot be turned into a graph by torch.export ({first}): "
            "export it as safetensors"
        ) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                # Where the source code lay on this machine is no part of the model.
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)
    return program


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    """One ONNX file: input `images` (batch, C, H, W), output `logits` (batch, classes)."""
    written = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        external_data=False,
    )
    assert written is not None  # only the old exporter answers with nothing
    model = written.model_proto
    graph = model.graph
    for parts in ([graph], graph.node, graph.input, graph.output, graph.initializer):
        for part in parts:
            # torch's notes on where each node came from: most of a small file, and local paths.
            part.ClearField("metadata_props")
    return model.SerializeToString()


def _proved(form: str, path: Path, cases: Path, bound: float) -> _Answer:
    """Have a fresh process read `path` back; its answer, if all logits are within `bound`."""
    answer_path = cases.with_name("answer.json")
    answer_path.unlink(missing_ok=True)
    command = [sys.executable, "-P", str(PROOF), form, str(path), str(cases), str(answer_path)]
    try:
        done = subprocess.run(
            [*command, str(torch.get_num_threads())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROOF_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"the proof of the {form} file took more than {PROOF_SECONDS} s and nothing was kept: "
            "try another format"
        ) from None
    if done.returncode != 0 or not answer_path.is_file():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ExportError(
            f"the {form} file could not be read back and run ({last}) and nothing was kept: "
            "try another format"
        )
    answer = _Answer.model_validate_json(answer_path.read_bytes())
    if not answer.max_difference < bound:
        raise ExportError(
            f"the {form} file computes something else: its logits differ by up to "
            f"{answer.max_difference:.2g} where less than {bound:.2g} was expected, and nothing "
            "was kept: try another format"
        )
    return answer
