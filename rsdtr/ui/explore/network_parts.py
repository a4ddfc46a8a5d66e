"""The network before and after on the page, by its parts; a convolution clicked opens in Layers."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.plan import Colour, parts_figure
from rsdtr.charts.tables import parts_table
from rsdtr.planning.network_parts import parts
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.shared import columns, numbers, session
from rsdtr.ui.shared.figures import chart_to_click, csv_button, open_clicked

COLOURS: dict[Colour, str] = {"gain": "Gain", "error": "Relative error"}


def offer(plan: CompressionPlan) -> None:
    """The figure, its table and the way to a clicked layer; nothing is drawn until it is opened."""
    st.fragment(_draw)(plan)


def _draw(plan: CompressionPlan) -> None:
    box = st.expander(
        "Before and after by stage, block and convolution",
        key=session.PARTS,
        icon=":material/account_tree:",
        on_change="rerun",
    )
    if not box.open:
        return
    with box:
        colour = st.segmented_control(
            "Colour",
            tuple(COLOURS),
            default="gain",
            required=True,
            format_func=COLOURS.__getitem__,
            key=session.PARTS_COLOUR,
            persist_state="session",
        )
        found = parts(plan)
        selection = chart_to_click(
            parts_figure(found, plan.model, colour),
            key="parts_figure",
            alt=f"Parameters of every stage, block and convolution of {plan.model} before and "
            f"after compression, coloured by {COLOURS[colour].lower()}; the table below says it in "
            "numbers",
        )
        open_clicked(selection, plan, "open_part")
        st.caption(
            "Both panels have one scale: what is missing below is saved. A part of several "
            "convolutions has the gain of all their parameters together, and the root mean square "
            "of their errors, weighted by parameters; a layer that stays dense has gain 1 and no "
            "error. A convolution that is clicked can be opened in Layers."
        )
        table = parts_table(found)
        st.dataframe(
            table,
            hide_index=True,
            column_config=columns.LAYER_COLUMNS,
            key="parts_table",
            alt="Every part of the network before and after",
        )
        csv_button(table.to_csv(index=False), f"{numbers.file_stem(plan)}-parts", "parts_csv")
