"""Handing a compressed model out: files that another process has read back and found equal."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

from rsdtr.compressed.manifest import (
    CARD,
    FILES,
    MANIFEST,
    MEMBERS,
    REPORT,
    WEIGHTS,
    Manifest,
    Proof,
    new_manifest,
    read_manifest,
)
from rsdtr.compressed.saved import Saved, is_saved, load, save
from rsdtr.data.datasets import LabelledImages
from rsdtr.data.tensor_images import ImageSource, images_of
from rsdtr.errors import ExportError, UnknownName
from rsdtr.exports.formats import Writer
from rsdtr.exports.onnx_export import onnx_file
from rsdtr.exports.proof import prepare_proofs, proved, write_cases
from rsdtr.exports.readme import readme
from rsdtr.models.outputs import chooses_boxes
from rsdtr.models.surgery import copied
from rsdtr.models.zoo import ModelSpec, spec_of
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system.folder_exchange import put
from rsdtr.system.safetensors_format import saved_bytes
from rsdtr.system.state_file import state_bytes, stored
from rsdtr.system.zip_archive import write_zip
from rsdtr.typing import Progress

__all__ = ["FORMATS", "Artefact", "Saved", "export", "load", "save"]

FORMATS = ("safetensors", "onnx", "pt2", "int8")


@dataclass(frozen=True)
class Artefact:
    """A proved file. bytes: its size; dense_bytes: that of the dense model exported the same way
    (None for pt2, int8 and python); the differences, argmax_agreement (a share, None without
    classes) and the two errors: of its `Proof`, over the logits of n images; seconds: to write and
    prove it. The manifest lies beside it.
    """

    format: str
    path: Path
    bytes: int
    dense_bytes: int | None
    max_difference: float
    mean_difference: float
    argmax_agreement: float | None
    n: int
    seconds: float
    relative_error: float | None = None
    residual_error: float | None = None

    @property
    def proof(self) -> Proof:
        """What was found when it was read back."""
        return Proof(
            max_difference=self.max_difference,
            mean_difference=self.mean_difference,
            argmax_agreement=self.argmax_agreement,
            n=self.n,
            relative_error=self.relative_error,
            residual_error=self.residual_error,
        )


def export(
    model: nn.Module,
    plan: CompressionPlan,
    images: ImageSource,
    formats: Sequence[str],
    out: str | Path,
    *,
    calibration: LabelledImages | None = None,
    metrics: Mapping[str, object] | None = None,
    report: str | None = None,
    progress: Progress | None = None,
) -> list[Artefact]:
    """Write `model` (compressed by `plan`) in float32 into the folder, or the one zip, `out`.

    Each file is read back in a fresh process, run on 64 real images one by one and in fives, and
    compared with the model in memory; manifest.json keeps these proofs. All files appear together,
    after the last proof (one by one, the manifest last, where `out` holds other things too): a
    logit off by 1e-4 or more (or by 1e-6 of the largest logit, if that is more: what float32
    resolves) is an ExportError and leaves nothing; of int8, a class agreement below 90 %, or where
    there are no classes answers off by more than 10 %, or by 30 % of what they change in a picture.
    onnx, int8 and pt2 take any batch; they hold the fused network, plain convolutions in the forms
    of `model`. safetensors holds the cores, and rsdtr_model.py beside it needs torch alone to run
    them. Of a network that answers boxes only safetensors, for `load` to read: it is proved by what
    it says of all anchors, before boxes are chosen. That of `zoo.own_model` is proved by
    rsdtr_model.py. The same model, images and libraries give the same bytes.
    calibration: whose images set the ranges of int8, by default `images`, from behind. report: the
    text of report.html, as rsdtr.charts.html_report makes it. progress: called with (steps done,
    steps in all). UnknownName for a format not in FORMATS.
    """
    chosen = checked_formats(formats, model)
    spec = spec_of(model, plan.model)
    images = images_of(images, spec)
    if images.spec.name != plan.model:
        raise ExportError(
            f"the images are prepared for {images.spec.name}, the plan is for {plan.model}: "
            "load them with its spec"
        )
    prepare_proofs()
    network = copied(model).eval().requires_grad_(False).float().cpu()
    target = Path(out).expanduser().resolve()
    zipped = target.suffix == ".zip"
    written = {CARD, *(FILES[form] for form in chosen), *([REPORT] if report is not None else [])}
    kept = _kept(target, network, plan, written) if not zipped else None
    whole = not zipped and _may_be_replaced(target)
    writer = Writer(network, plan, calibration or images, metrics)
    artefacts = []
    with _workplace(target.parent if zipped or whole else target) as temporary:
        files = temporary / (target.stem or "files")
        files.mkdir()
        cases = temporary / "cases.safetensors"
        bound = write_cases(network, images, cases)
        for position, form in enumerate(chosen):
            _tell(progress, 2 * position, 2 * len(chosen))
            started = time.perf_counter()
            path = files / FILES[form]
            writer.write(form, path)
            by = form
            if form == "safetensors" and spec.own:
                by = "python"  # no other process can build the network, but this program does
                writer.write(by, files / FILES[by])
            size = _dense_bytes(form, spec)
            _tell(progress, 2 * position + 1, 2 * len(chosen))
            proof = proved(by, files / FILES[by], cases, bound)
            artefacts.append(
                Artefact(
                    format=form,
                    path=target / path.name,
                    bytes=path.stat().st_size,
                    dense_bytes=size,
                    seconds=time.perf_counter() - started,
                    **proof.model_dump(),
                )
            )
        if report is not None:
            (files / REPORT).write_bytes(report.encode())
        _describe(files, artefacts, plan, images, metrics, kept)
        if zipped:
            write_zip(files, target)
        elif whole:
            for name in (kept.files.keys() - set(os.listdir(files))) if kept else ():
                shutil.copyfile(target / name, files / name)
            put(files, target)
        else:
            last = (CARD, MANIFEST)
            for path in sorted(files.iterdir(), key=lambda path: path.name in last):
                os.replace(path, target / path.name)
    _tell(progress, 2 * len(chosen), 2 * len(chosen))
    return artefacts


def checked_formats(formats: Sequence[str], model: nn.Module) -> tuple[str, ...]:
    """The formats that will be written, in order; UnknownName for one that there is not."""
    if not formats:
        raise ExportError(f"no format was given: choose from {', '.join(FORMATS)}")
    for form in formats:
        if form not in FORMATS:
            raise UnknownName(f"{form!r} is no format: choose from {', '.join(FORMATS)}")
    chosen = list(dict.fromkeys(formats))
    # rsdtr_model.py is written for the file it lies beside, and has no boxes to choose.
    if "safetensors" in chosen and not chooses_boxes(model):
        chosen.insert(chosen.index("safetensors") + 1, "python")
    return tuple(chosen)


def _describe(
    folder: Path,
    artefacts: Sequence[Artefact],
    plan: CompressionPlan,
    images: LabelledImages,
    metrics: Mapping[str, object] | None,
    kept: Manifest | None,
) -> None:
    """Write the card and then the manifest, which knows the proofs of all files."""
    proofs = {item.format: item.proof for item in artefacts}
    data = Path(images.name).name  # a folder is known by its name, not by where it lay
    names = [item.path.name for item in artefacts] + [REPORT] * (folder / REPORT).exists()
    manifest = new_manifest(folder, names, plan, metrics, data, proofs, images.spec)
    if kept is not None:
        manifest = manifest.model_copy(
            update={"files": kept.files | manifest.files, "proofs": kept.proofs | proofs}
        )
    (folder / CARD).write_bytes(readme(manifest, images.spec).encode())
    manifest.with_file(folder / CARD).write(folder)


def _kept(
    folder: Path, network: nn.Module, plan: CompressionPlan, written: Set[str]
) -> Manifest | None:
    """The manifest of an earlier export of this very model in `folder`, whose other files stay.

    ExportError if the folder holds anything that would be lost or would not fit.
    """
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file: give the name of a folder")
    if not is_saved(folder):
        for name in (MANIFEST, CARD):
            if (folder / name).exists():
                raise ExportError(
                    f"{folder / name} belongs to something else and would be lost: "
                    "give another folder"
                )
        return None
    try:
        earlier = read_manifest(folder)
    except ExportError:  # of another version: all of it is replaced
        return None
    same = hashlib.sha256(state_bytes(network.state_dict())).hexdigest()
    if WEIGHTS in earlier.files and earlier.files[WEIGHTS].sha256 == same and earlier.plan == plan:
        return earlier
    others = earlier.files.keys() - written
    if others:
        raise ExportError(
            f"{folder} holds {', '.join(sorted(others))} of another model: give another folder"
        )
    return None


def _may_be_replaced(target: Path) -> bool:
    """Whether the folder as such can be a new one: it is not there, or holds an export alone.

    Not a folder that somebody works in, and none that begins a file system.
    """
    if not target.exists():
        return True
    return (
        is_saved(target)
        and {path.name for path in target.iterdir()} <= {MANIFEST, *MEMBERS}
        and not Path.cwd().is_relative_to(target)
        and not target.is_mount()
        and os.access(target.parent, os.W_OK)
    )


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


def _dense_bytes(form: str, spec: ModelSpec) -> int | None:
    """What the dense model takes in that format; None for pt2, which is not worth the time."""
    if form == "safetensors":
        return saved_bytes(_dense(spec))
    if form != "onnx":
        return None
    if spec.own:  # its name may stand for another network by now
        return len(onnx_file(_dense(spec), spec))
    return _dense_onnx_bytes(spec)


@cache
def _dense_onnx_bytes(spec: ModelSpec) -> int:
    return len(onnx_file(_dense(spec), spec))


def _dense(spec: ModelSpec) -> nn.Module:
    """The uncompressed architecture; its values do not matter, but no two tensors may be equal,
    because the ONNX optimiser would store them once.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = spec.build().eval().requires_grad_(False)
        for value in stored(model.state_dict()).tensors.values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return model
