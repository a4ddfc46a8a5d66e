"""int8 by ONNX Runtime: the network as the other methods of a comparison have it."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from rsdtr.data import LabelledImages
from rsdtr.exports.graph import onnx_file, quantised
from rsdtr.zoo import ModelSpec

CALIBRATION_IMAGES = 256


def int8_file(network: nn.Module, spec: ModelSpec, images: LabelledImages) -> bytes:
    """The network, fused, as an int8 ONNX file; ranges are those of 256 unlabelled images."""
    seen = images.first(CALIBRATION_IMAGES).inputs(slice(None))
    return quantised(onnx_file(network, spec), seen)


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
