"""int8 by ONNX Runtime: static QDQ, weights per channel, ranges from calibration images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from rsdtr.data import LabelledImages
from rsdtr.export import onnx_file
from rsdtr.zoo import ModelSpec

CALIBRATION_IMAGES, BATCH = 256, 64


def int8_file(network: nn.Module, spec: ModelSpec, images: LabelledImages) -> bytes:
    """The network, fused, as an int8 ONNX file; ranges are those of 256 unlabelled images."""
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "int8"))
        plain.write_bytes(onnx_file(network, spec))
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, small, _Images(images.subset(CALIBRATION_IMAGES)),
            quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return small.read_bytes()


class OnnxNetwork(nn.Module):
    """An ONNX file as a network, (B, C, H, W) -> logits (B, classes), on one thread."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        (logits,) = self._session.run(None, {"images": images.numpy()})
        return torch.from_numpy(np.asarray(logits))


class _Images(CalibrationDataReader):
    def __init__(self, images: LabelledImages) -> None:
        self._batches: Iterator[tuple[Tensor, Tensor]] = images.batches(BATCH)

    def get_next(self) -> dict[str, object] | None:
        pair = next(self._batches, None)
        return None if pair is None else {"images": pair[0].numpy()}
