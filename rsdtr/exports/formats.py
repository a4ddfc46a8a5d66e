"""Writing a network in one format: what export does once, and verify again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.manifest import WEIGHTS
from rsdtr.compressed.saved import write_into
from rsdtr.data.datasets import LabelledImages
from rsdtr.errors import ExportError
from rsdtr.exports.onnx_export import (
    onnx_bytes,
    program,
    quantised,
    runs_at,
    takes_sizes,
)
from rsdtr.exports.torch_program import source
from rsdtr.models.zoo import spec_of
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ring.cost import Size

CALIBRATION_IMAGES = 256


class Writer:
    """A compressed network, in eval mode, that can be written in every format.

    calibration: pictures whose values set the ranges of int8; the last 256 serve.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: CompressionPlan,
        calibration: LabelledImages,
        metrics: Mapping[str, object] | None = None,
    ) -> None:
        self._network, self._plan, self._metrics = network, plan, metrics
        self._calibration = calibration
        self._spec = spec_of(network, plan.model)

    def write(self, form: str, path: Path) -> None:
        """Write one format. python needs model.safetensors beside it, which it is written for."""
        if form == "safetensors":
            write_into(path.parent, self._network, self._plan, self._metrics)
        elif form == "python":
            sha256 = hashlib.sha256(path.with_name(WEIGHTS).read_bytes()).hexdigest()
            path.write_bytes(self._program(sha256).encode())
        elif form == "onnx":
            path.write_bytes(self._onnx.content)
        elif form == "int8":
            images = self._calibration.last(CALIBRATION_IMAGES)
            path.write_bytes(quantised(self._onnx.content, images.inputs(slice(None))))
        else:
            torch.export.save(self._fused, path)

    def _program(self, sha256: str) -> str:
        try:
            return source(self._stored, self._plan, self._spec, sha256)
        except ExportError:
            if not takes_sizes(self._stored):
                raise
        # What depends on the size may be what cannot be written out.
        self._stored = program(self._network, self._spec, any_size=False)
        return source(self._stored, self._plan, self._spec, sha256)

    @cached_property
    def other_size(self) -> Size | None:
        """A height and width besides the model's that the network takes; None where it has none."""
        return runs_at(self._network, self._spec)

    def takes_sizes(self, form: str) -> bool:
        """Whether a file of this format takes images of that size too."""
        if self.other_size is None or form == "safetensors":
            return self.other_size is not None
        if form in ("onnx", "int8"):
            return self._onnx.takes_sizes
        return takes_sizes(self._stored if form == "python" else self._fused)

    @cached_property
    def _stored(self) -> torch.export.ExportedProgram:
        return program(self._network, self._spec)

    @cached_property
    def _fused(self) -> torch.export.ExportedProgram:
        return program(fuse(self._network), self._spec)

    @cached_property
    def _onnx(self) -> _Onnx:
        varies = takes_sizes(self._fused)
        try:
            return _Onnx(onnx_bytes(self._fused), varies)
        except ExportError:
            if not varies:
                raise
        fixed = program(fuse(self._network), self._spec, any_size=False)
        return _Onnx(onnx_bytes(fixed), False)


@dataclass(frozen=True)
class _Onnx:
    """An ONNX file, and whether it takes images of other sizes."""

    content: bytes
    takes_sizes: bool
