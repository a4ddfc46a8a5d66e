"""Methods beside each other on one network: a cell for every method and PCR, each kept on disk.

A cell that is known is not computed again; one that fails says why and stops no other. int8 is
ONNX Runtime's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor, nn

from rsdtr.baselines.catalogue import (
    AFTER,
    INT8,
    LayerCores,
    Made,
    Subject,
    check_methods,
    method,
)
from rsdtr.baselines.costs import BATCH, fastest, latency_ratio
from rsdtr.compressed.fuse import fuse
from rsdtr.data.datasets import LabelledImages
from rsdtr.errors import RsdtrError, first_line
from rsdtr.exports.onnx_export import onnx_file, quantised
from rsdtr.measuring.accuracy import accuracy
from rsdtr.models.weights_source import PUBLISHED, WeightsField
from rsdtr.models.zoo import ModelSpec
from rsdtr.recovery.finetune import finetune
from rsdtr.recovery.options import FinetuneOptions
from rsdtr.recovery.recalibrate import move_statistics, recalibrate
from rsdtr.system.atomic_files import replace_file
from rsdtr.system.safetensors_format import saved_bytes
from rsdtr.typing import Frozen

VERSION = 2  # part of every cell's key: raise it when a result may change
CELLS = "cells"


class Comparison(Frozen):
    """What is compared: the methods, the PCRs they are to reach, and what happens before testing.

    recalibrate: BatchNorm statistics from so many unlabelled training images, if any; epochs: of
    fine-tuning; limit: so many test images, None for all.
    """

    model: str
    methods: tuple[str, ...] = Field(min_length=1)
    pcrs: tuple[float, ...] = Field(min_length=1)
    recalibrate: int | None = Field(default=None, ge=2)
    epochs: int = Field(default=0, ge=0)
    data: str | None = None
    weights: WeightsField = PUBLISHED
    limit: int | None = Field(default=None, ge=1)

    @field_validator("pcrs")
    @classmethod
    def _above_one(cls, pcrs: tuple[float, ...]) -> tuple[float, ...]:
        for pcr in pcrs:
            if not pcr > 1:
                raise ValueError(f"a PCR of {pcr:g} makes nothing smaller: give numbers above 1")
        return pcrs

    @property
    def pairs(self) -> tuple[tuple[str, float], ...]:
        """Method and PCR of each cell; int8 alone has one cell, of PCR 1."""
        return tuple(
            dict.fromkeys(
                (name, 1.0 if name == INT8 else pcr) for pcr in self.pcrs for name in self.methods
            )
        )


class Cell(Frozen):
    """One method at one PCR.

    asked: the PCR that was asked for; pcr, fcr: reached, of the whole network (FCR of a ring by the
    paper's four sublayers, of others by their chain); eps: of every layer, where it has one;
    latency_ratio: processor time for 16 images, compressed / dense, each layer in its fastest form
    (int8: both networks in their own engine); bytes: of the safetensors file, or of the ONNX file
    for int8; accuracy, interval: percent of n test images; seconds: to compress, without recovery
    and tests; relative_errors, cores: by layer, of those that are no longer dense (cores are empty
    in a cell that an earlier version computed); failed: why there is nothing else, in one sentence;
    assumed: what the labels take for granted.
    """

    method: str
    asked: float
    pcr: float | None = None
    fcr: float | None = None
    eps: float | None = None
    latency_ratio: float | None = None
    bytes: int | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    seconds: float | None = None
    relative_errors: tuple[tuple[str, float], ...] = ()
    cores: tuple[LayerCores, ...] = ()
    failed: str | None = None
    assumed: str | None = Field(default=None, exclude_if=lambda value: value is None)


def run(
    asked: Comparison,
    subject: Subject,
    folder: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Cell]:
    """Every cell, computed or read from `folder`/cells, in the order of `asked.pairs`.

    subject: the network that `asked` names, with its data. progress: called with what is done now,
    (cells done, cells in all). RsdtrError if the folder cannot be written, a method
    has no name, or there are no labels to test by.
    """
    check_methods(asked.methods)
    subject.data.test.check_labelled("a comparison")
    dense = fuse(subject.model)
    for done, (name, pcr) in enumerate(asked.pairs):
        if should_stop():
            return
        if progress:
            progress(f"{name} at PCR {pcr:g}", done, len(asked.pairs))
        path = cell_path(asked, subject, folder, name, pcr)
        cell = read_cell(path)
        if cell is None:
            cell = _computed(asked, subject, dense, name, pcr)
            _write(path, cell)
        yield cell


def cell_path(asked: Comparison, subject: Subject, folder: Path, name: str, pcr: float) -> Path:
    """Where a cell lies: its name ends in a hash of all that it depends on."""
    content = [
        VERSION, subject.profile.weights_sha256, name, pcr, asked.recalibrate, asked.epochs,
        asked.limit, subject.data.test.name, len(subject.data.test), len(subject.data.train),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    return folder / CELLS / f"{name}-{pcr:g}-{key}.json"


def read_cell(path: Path) -> Cell | None:
    """A cell that was finished, None if there is none; a failed one is tried again."""
    try:
        cell = Cell.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return None if cell.failed else cell


def _write(path: Path, cell: Cell) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, cell.model_dump_json(indent=1).encode())
    except OSError as error:
        raise RsdtrError(
            f"{path} could not be written ({error.strerror or error}): give another folder"
        ) from error


def _computed(asked: Comparison, subject: Subject, dense: nn.Module, name: str, pcr: float) -> Cell:
    try:
        return _made(asked, subject, dense, name, pcr)
    except RsdtrError as error:
        reason = str(error)
    except Exception as error:  # of whatever library: the other cells are worth having
        first = first_line(error, "no message")
        reason = f"it broke off with {type(error).__name__}: {first}"
    return Cell(method=name, asked=pcr, failed=reason)


def _made(asked: Comparison, subject: Subject, dense: nn.Module, name: str, pcr: float) -> Cell:
    data, spec = subject.data, subject.spec
    test = data.test if asked.limit is None else data.test.subset(asked.limit)
    images = torch.randn(BATCH, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    if name == INT8:
        made = Made(subject.model, 1.0, 1.0)
    else:
        made = method(name.removesuffix(AFTER)).make(subject, pcr)
    seconds = time.perf_counter() - started
    network = made.model
    if name != INT8:
        network = _recovered(asked, subject, made)
    size = saved_bytes(network)
    if name == INT8 or name.endswith(AFTER):
        started = time.perf_counter()
        content = int8_file(fastest(network, subject.profile), spec, data.train)
        seconds += time.perf_counter() - started
        running: nn.Module = OnnxNetwork(content)
        size, dense = len(content), OnnxNetwork(onnx_file(dense, spec))
    else:
        running = fastest(network, subject.profile)
    ratio = latency_ratio(running, dense, images)
    reached = accuracy(running, test)
    return Cell(
        method=name, asked=pcr, pcr=made.pcr, fcr=made.fcr, eps=made.eps,
        latency_ratio=ratio, bytes=size, accuracy=reached.percent,
        interval=reached.interval, n=reached.n, seconds=seconds,
        relative_errors=made.relative_errors, cores=made.cores, assumed=reached.assumed,
    )  # fmt: skip


def _recovered(asked: Comparison, subject: Subject, made: Made) -> nn.Module:
    network, data = made.model, subject.data
    if asked.recalibrate is not None:
        images, n = data.train, asked.recalibrate
        if made.repeat is None:
            network = recalibrate(network, images, n, reference=subject.model)
        else:
            own, here = network, made.repeat(recalibrate(subject.model, images, n))
            network = recalibrate(own, images, n)
            move_statistics(network, here, own)
    if asked.epochs:
        options = FinetuneOptions(epochs=asked.epochs, lr=0.02, batch_size=128)
        for _ in finetune(network, data, options):
            pass
    return network


def front(cells: tuple[Cell, ...], cost: Callable[[Cell], float | None]) -> tuple[Cell, ...]:
    """The cells that no other one beats in both accuracy and cost (smaller is better)."""
    known = [(cell, value) for cell in cells if (value := cost(cell)) is not None]
    return tuple(
        cell
        for cell, value in known
        if cell.accuracy is not None
        and not any(
            other.accuracy is not None
            and other.accuracy >= cell.accuracy
            and price <= value
            and (other.accuracy, -price) != (cell.accuracy, -value)
            for other, price in known
        )
    )


CALIBRATION_IMAGES = 256


def int8_file(network: nn.Module, spec: ModelSpec, images: LabelledImages) -> bytes:
    """The network, fused, as an int8 ONNX file; ranges are those of 256 unlabelled images."""
    seen = images.first(CALIBRATION_IMAGES).inputs(slice(None))
    return quantised(onnx_file(network, spec), seen)


class OnnxNetwork(nn.Module):
    """An ONNX file as a network, (B, C, H, W) -> logits (B, classes), on one thread."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime as ort  # starts a thread

        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        (logits,) = self._session.run(None, {"images": images.numpy()})
        return torch.from_numpy(np.asarray(logits))
