"""The columns of tables, with their units and how they are read."""

from __future__ import annotations

import streamlit as st

from rsdtr.search.candidate import GRID

_RATIO = st.column_config.NumberColumn(format="%.2f")
_ERROR = st.column_config.NumberColumn(format="%.3f")
_COUNT = st.column_config.NumberColumn(format="localized")
LAYER_COLUMNS = {
    "layer": st.column_config.TextColumn(pinned=True),
    "εₚ": st.column_config.NumberColumn(
        format="%.2f",
        min_value=GRID[0],
        max_value=GRID[-1],
        step=0.01,
        help="Prescribed relative error of this layer. Edit it to pin it; empty it to undo that.",
    ),
    "keep dense": st.column_config.CheckboxColumn(help="Leave this layer as it is."),
    "runs": st.column_config.NumberColumn(
        format="localized", help="How often it runs for one input; its MACs are of all its runs."
    ),
    "before (scalars)": _COUNT,
    "after (scalars)": _COUNT,
    "ratio (×)": _RATIO,
    "relative error": _ERROR,
    "before (MACs)": _COUNT,
    "after (MACs)": _COUNT,
    "dense (ms)": st.column_config.NumberColumn(
        format="%.3g", help="Best measured time of its convolution as trained."
    ),
    "ring (ms)": st.column_config.NumberColumn(
        format="%.3g", help="Best measured time of its ring in the fastest form."
    ),
    "ring / dense (×)": st.column_config.NumberColumn(
        format="%.2f", help="Time of the ring over that of the dense convolution: below 1 it gains."
    ),
    "fastest form": st.column_config.TextColumn(
        help="The fastest way to compute the ring here. A ring that is no faster runs dense."
    ),
    "in time": st.column_config.MultiselectColumn(
        options=["gains", "runs dense", "kept dense", "not measured"],
        color=["green", "orange", "gray", "blue"],
        help="Whether the layer takes less time as a ring, as measured for the batch above.",
    ),
    "because": st.column_config.TextColumn(help="Why it does not gain, or what it gains."),
}
CANDIDATE_COLUMNS = {
    "storage (scalars)": _COUNT,
    "ratio (×)": _RATIO,
    "relative error": _ERROR,
    "MACs per pixel": _COUNT,
    "ruled out: at least": _COUNT,
}
PIN_COLUMNS = {name: st.column_config.NumberColumn(format="localized") for name in ("A", "B")} | {
    "B − A": st.column_config.NumberColumn(format="localized"),
}
RUN_COLUMNS = {
    "best validation (%)": _RATIO,
    "from (%)": _RATIO,
    "to (%)": _RATIO,
    "epoch (s)": st.column_config.NumberColumn(format="%.1f"),
    "learning rate": st.column_config.NumberColumn(format="%.4f"),
}
STEP_COLUMNS = {
    "judged by": st.column_config.TextColumn(
        help="Relative and rectified error: squared, of a layer's value, as parts of its power. "
        "Divergence: of the network's class probabilities from the dense network's, in nats."
    ),
    "before": st.column_config.NumberColumn(format="%.4g"),
    "after": st.column_config.NumberColumn(format="%.4g"),
    "gained (%)": st.column_config.NumberColumn(format="%.1f"),
}

CELL_COLUMNS = {
    "asked PCR": st.column_config.NumberColumn(format="%.4g"),
    "PCR": st.column_config.NumberColumn(format="%.3f"),
    "FCR": st.column_config.NumberColumn(format="%.3f"),
    "latency ratio": st.column_config.NumberColumn(format="%.2f"),
    "bytes": st.column_config.NumberColumn(
        format="localized", help="Of the safetensors file; of int8, of the ONNX file."
    ),
    "accuracy (%)": st.column_config.NumberColumn(format="%.2f"),
    "from (%)": st.column_config.NumberColumn(format="%.2f"),
    "to (%)": st.column_config.NumberColumn(format="%.2f"),
    "seconds": st.column_config.NumberColumn(format="%.1f", help="To compress, nothing else."),
}

PAIR_COLUMNS = {
    name: st.column_config.NumberColumn(format="localized")
    for name in ("dense", "storage A", "storage B")
} | {
    name: st.column_config.NumberColumn(format="%.3f", help="‖𝓦 − 𝓦̂‖_F / ‖𝓦‖_F")
    for name in ("error A", "error B")
}
