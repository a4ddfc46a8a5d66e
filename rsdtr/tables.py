"""The tables behind the figures: data frames with their units in the headers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from rsdtr.plan import CompressionPlan
from rsdtr.search import Candidate

if TYPE_CHECKING:  # importing it would load the ONNX stack
    from rsdtr.export import Artefact


def layers_table(plan: CompressionPlan) -> pd.DataFrame:
    """One row per convolution: what the plan makes of it, before and after."""
    return pd.DataFrame(
        [
            {
                "layer": layer.name,
                "kernel (O × I × KH × KW)": " × ".join(map(str, layer.shape)),
                "stride": " × ".join(map(str, layer.stride)),
                "before (scalars)": math.prod(layer.shape),
                "after (scalars)": layer.storage,
                "ratio (×)": math.prod(layer.shape) / layer.storage,
                "ranks R0…R3": ", ".join(map(str, layer.ranks or ())),
                "shift": layer.shift,
                "r0": layer.r0,
                "relative error": layer.relative_error,
                "before (MACs)": layer.macs.original,
                "after (MACs)": layer.macs.compressed,
                "form": layer.form,
                "kept dense because": layer.kept_dense or "",
            }
            for layer in plan.layers
        ]
    ).astype({"shift": "Int64", "r0": "Int64"})


def candidates_table(found: Sequence[Candidate], winner: Candidate, dense: int) -> pd.DataFrame:
    """One row per candidate of a layer, in the search's order; dense: scalars of the kernel."""
    return pd.DataFrame(
        [
            {
                "chosen": candidate == winner,
                "shift": candidate.shift,
                "r0": candidate.r0,
                "ranks R0…R3": ", ".join(map(str, candidate.ranks)),
                "storage (scalars)": candidate.storage,
                "ratio (×)": dense / candidate.storage,
                "MACs per pixel": candidate.macs,
                "relative error": candidate.relative_error,
            }
            for candidate in found
        ]
    )


def artefacts_table(artefacts: Sequence[Artefact]) -> pd.DataFrame:
    """One row per exported file: its size beside the dense model's, and its proof."""
    return pd.DataFrame(
        [
            {
                "file": artefact.path.name,
                "format": artefact.format,
                "size (bytes)": artefact.bytes,
                "dense (bytes)": artefact.dense_bytes,
                "largest difference of logits": artefact.max_difference,
                "same class (%)": 100 * artefact.argmax_agreement,
                "images": artefact.n,
                "time (s)": artefact.seconds,
            }
            for artefact in artefacts
        ]
    ).astype({"dense (bytes)": "Int64"})
