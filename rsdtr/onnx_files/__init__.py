"""ONNX in, ONNX out: networks of ONNX files, planned, compressed and refit as graphs."""

from rsdtr.onnx_files.compress_onnx import CompressedOnnx, compress_onnx
from rsdtr.onnx_files.network_inputs import NetworkInputs, network_inputs
from rsdtr.onnx_files.onnx_network import OnnxNetwork, read_onnx
from rsdtr.onnx_files.refit_onnx import refit_onnx
from rsdtr.onnx_files.verify_onnx import verify_onnx

__all__ = [
    "CompressedOnnx",
    "NetworkInputs",
    "OnnxNetwork",
    "compress_onnx",
    "network_inputs",
    "read_onnx",
    "refit_onnx",
    "verify_onnx",
]
