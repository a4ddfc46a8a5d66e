"""What a graph answers, and how well another one answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from rsdtr.measuring.fidelity import Counted, Fidelity
from rsdtr.onnx_files.network_inputs import NetworkInputs
from rsdtr.onnx_files.runtime import Arrays, Session

Numbers = NDArray[np.float64]
_LEAST = 1e-12  # of a probability
_SUMS_TO_ONE = 1e-3


@dataclass(frozen=True, eq=False)
class Answers:
    """All outputs of a graph for some inputs: by batch, arrays by name."""

    batches: Sequence[Arrays]

    @classmethod
    def of(cls, model: ModelProto | Session, inputs: NetworkInputs) -> Answers:
        """Run a graph; RsdtrError for inputs that it does not run on."""
        session = model if isinstance(model, Session) else Session(model)
        return cls([session(batch) for batch in inputs.batches()])

    def divergence_from(self, expected: Answers) -> tuple[Measure, float]:
        """How far these answers are from the expected ones: where they tell classes apart the mean
        KL divergence in nats, else the mean relative error.
        """
        named = _class_output(expected.batches[0])
        if named is None:
            return "answer error", fidelity_of(self, expected).relative_error
        name, axis = named
        total = count = 0.0
        for found, wanted in zip(self.batches, expected.batches, strict=True):
            p, q = (_log_probabilities(batch[name], axis) for batch in (wanted, found))
            apart = (np.exp(p) * (p - q)).sum(axis)
            total, count = total + float(apart.sum()), count + apart.size
        value = total / max(count, 1)
        return "divergence", value if np.isfinite(value) else float(np.finfo(np.float64).max)


Measure = Literal["divergence", "answer error"]


def fidelity_of(found: Answers, expected: Answers) -> Fidelity:
    """What a graph's answers have in common with the expected ones, input by input.

    agreement: of the first output that tells classes apart: (B, classes), (B, classes, H, W), or
    probabilities of classes at each position of a text.
    """
    errors: list[float] = []
    alike = of = 0
    named = _class_output(expected.batches[0])
    counted: Counted | None = None
    for have, want in zip(found.batches, expected.batches, strict=True):
        first, second = _rows(want), _rows(have)
        norms = np.linalg.norm(first, axis=1)
        off = np.linalg.norm(first - second, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(off == 0, 0.0, off / norms)
        errors += np.nan_to_num(relative, nan=1.0, posinf=1.0).tolist()
        if named is not None:
            name, axis = named
            same = want[name].argmax(axis) == have[name].argmax(axis)
            alike, of = alike + int(same.sum()), of + same.size
            counted = "images" if same.ndim == 1 else "positions" if same.ndim == 2 else "pixels"
    agreement = 100 * alike / of if of else None
    return Fidelity(float(np.mean(errors)), agreement, counted, of, len(errors))


def largest_error(found: Arrays, expected: Arrays) -> float:
    """The largest ‖y − ŷ‖/‖y‖ of arrays of the same names; 1e-6 an element counts as nothing."""
    worst = 0.0
    for name, array in expected.items():
        wanted, have = array.astype(np.float64), found[name].astype(np.float64)
        off = float(np.linalg.norm(wanted - have))
        if not np.isfinite(off):
            same = np.array_equal(array, found[name], equal_nan=True)
            worst = max(worst, 0.0 if same else np.inf)
        elif off > 1e-6 * np.sqrt(array.size):
            worst = max(worst, off / max(float(np.linalg.norm(wanted)), 1e-300))
    return worst


def _rows(batch: Arrays) -> Numbers:
    """All numbers of the answers, (B, N), in float64; of outputs that are no tensors, nothing."""
    arrays = [x for x in batch.values() if isinstance(x, np.ndarray) and x.dtype.kind in "fiub"]
    count = next((len(x) for x in arrays if x.ndim), 1)
    parts = [x.astype(np.float64).reshape(count, -1) for x in arrays if x.size % count == 0]
    return np.concatenate(parts, axis=1) if parts else np.zeros((count, 1))


def _class_output(batch: Arrays) -> tuple[str, int] | None:
    """The first output that tells classes apart, and its axis of classes."""
    for name, array in batch.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            continue
        if array.ndim == 2 and array.shape[1] > 1:
            return name, 1
        for axis in (array.ndim - 1, 1):
            if array.ndim in (3, 4) and array.shape[axis] > 1 and _is_probability(array, axis):
                return name, axis
        if array.ndim == 4 and array.shape[1] > 4:  # up to four channels are a picture's
            return name, 1
    return None


def _is_probability(array: NDArray[np.generic], axis: int) -> bool:
    values = array.astype(np.float64)
    sums = values.sum(axis)
    return bool((values >= -_SUMS_TO_ONE).all() and (abs(sums - 1) < _SUMS_TO_ONE).all())


def _log_probabilities(array: NDArray[np.generic], axis: int) -> Numbers:
    values = array.astype(np.float64)
    if _is_probability(array, axis):
        return np.log(np.maximum(values, _LEAST))
    values = values - values.max(axis, keepdims=True)
    made: Numbers = values - np.log(np.exp(values).sum(axis, keepdims=True))
    return made
