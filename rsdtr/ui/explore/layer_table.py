"""The table of layers, in which each can get an ε_p of its own or stay dense."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.tables import MEASURED, layers_table
from rsdtr.measuring.latency import NetworkLatency
from rsdtr.ui.plan import layer_overrides
from rsdtr.ui.plan.chosen_plan import Chosen
from rsdtr.ui.shared import columns, session


def edit_layers(chosen: Chosen, latency: NetworkLatency) -> None:
    """The table of layers, whose ε_p and "keep dense" may be edited."""
    table = layers_table(chosen.plan, chosen.own, latency)
    badges = {"in time": [[status] for status in table["in time"]]}
    possible = set(layer_overrides.ring_layers(chosen.network.profile))
    names = [name if name in possible else "" for name in table["layer"]]
    # A new key for every edit: the old table's edits are part of the plan then.
    key = f"{session.EDITS}-{st.session_state.get(session.EDITS, 0)}"
    measured = any(item.times for item in latency.layers)
    st.data_editor(
        table.assign(**badges),
        hide_index=True,
        placeholder="–",
        column_config=columns.LAYER_COLUMNS,
        column_order=[name for name in table if measured or name not in MEASURED],
        disabled=[
            name
            for name in table
            if name not in (layer_overrides.EPS_COLUMN, layer_overrides.DENSE_COLUMN)
        ],
        key=key,
        on_change=layer_overrides.take_edits,
        args=(key, chosen.own, names),
        alt="What the plan makes of each convolution",
    )
