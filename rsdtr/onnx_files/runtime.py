"""ONNX Runtime: graphs as functions of named arrays."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper

from rsdtr.errors import RsdtrError
from rsdtr.onnx_files.onnx_file import brief_line, session_source

Arrays = dict[str, NDArray[np.generic]]
_ERRORS_ONLY = 3


class Session:
    """A graph that runs in ONNX Runtime on the processor; RsdtrError where it cannot.

    threads: as torch has them, by default; plain: without ONNX Runtime's optimisations.
    """

    def __init__(self, model: ModelProto, *, threads: int | None = None, plain: bool = False):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY + 1
        if plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source, folder = session_source(model)
        try:
            self._session = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a class for each status
            raise RsdtrError(
                f"ONNX Runtime cannot open the graph ({brief_line(error)}): give a network that "
                "it runs"
            ) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        self.outputs = [value.name for value in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """All outputs, by name; RsdtrError for inputs that the graph does not run on."""
        try:
            found = self._session.run(None, dict(inputs))
        except Exception as error:
            shapes = ", ".join(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in inputs.items())
            raise RsdtrError(
                f"the graph does not run on {shapes} ({brief_line(error)}): give inputs of the "
                "shape and type that it takes"
            ) from error
        return dict(zip(self.outputs, found, strict=True))


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The same graph that answers these values, of whatever type and shape, and no others."""
    other = ModelProto()
    other.CopyFrom(model)
    del other.graph.output[:]
    other.graph.output.extend(ValueInfoProto(name=name) for name in names)
    return other


def value_info(name: str, array: NDArray[np.generic]) -> ValueInfoProto:
    """The type of an array, and its number of axes; their sizes are left open."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * array.ndim)
