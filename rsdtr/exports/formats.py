"""Writing a network in one format: what export does once, and verify again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.manifest import WEIGHTS
from rsdtr.compressed.saved import write_into
from rsdtr.data.datasets import LabelledImages
from rsdtr.exports.onnx_export import onnx_bytes, program, quantised
from rsdtr.exports.torch_program import source
from rsdtr.models.zoo import spec_of
from rsdtr.planning.plan import CompressionPlan

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
            path.write_bytes(source(self._stored, self._plan, self._spec, sha256).encode())
        elif form == "onnx":
            path.write_bytes(self._onnx)
        elif form == "int8":
            images = self._calibration.last(CALIBRATION_IMAGES)
            path.write_bytes(quantised(self._onnx, images.inputs(slice(None))))
        else:
            torch.export.save(self._fused, path)

    @cached_property
    def _stored(self) -> torch.export.ExportedProgram:
        return program(self._network, self._spec)

    @cached_property
    def _fused(self) -> torch.export.ExportedProgram:
        return program(fuse(self._network), self._spec)

    @cached_property
    def _onnx(self) -> bytes:
        return onnx_bytes(self._fused)
