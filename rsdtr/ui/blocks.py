"""The network before and after on the page, by its parts; a convolution clicked opens in Layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from rsdtr.charts.parts import Colour, parts_figure
from rsdtr.parts import parts
from rsdtr.plan import CompressionPlan
from rsdtr.tables import parts_table
from rsdtr.ui import metrics, state, url
from rsdtr.ui.page import plain
from rsdtr.ui.widgets import chart_to_click, csv_button

COLOURS: dict[Colour, str] = {"gain": "Gain", "error": "Relative error"}


def offer(plan: CompressionPlan) -> None:
    """The figure, its table and the way to a clicked layer; nothing is drawn until it is opened."""
    st.fragment(_draw)(plan)


def _draw(plan: CompressionPlan) -> None:
    box = st.expander(
        "Before and after by stage, block and convolution",
        key=state.PARTS,
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
            key=state.PARTS_COLOUR,
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
            column_config=metrics.LAYER_COLUMNS,
            key="parts_table",
            alt="Every part of the network before and after",
        )
        csv_button(table.to_csv(index=False), f"{metrics.file_stem(plan)}-parts", "parts_csv")


def clicked(selection: Any, plan: CompressionPlan) -> str | None:
    """The layer of the point that was clicked; None without a click, or of no single layer."""
    names = {layer.name for layer in plan.layers}
    for point in selection["points"]:
        found = point.get("customdata")
        words = found if isinstance(found, list) else [found]
        if words and words[0] in names:
            return str(words[0])
    return None


def open_clicked(selection: Any, plan: CompressionPlan, key: str) -> None:
    """The way from a clicked layer to the Layers page, as a button of this key."""
    name = clicked(selection, plan)
    if name is not None and st.button(
        plain(f"Open {name} in Layers"),
        key=key,
        icon=":material/grid_view:",
        on_click=partial(_choose, name),
    ):
        st.switch_page("pages/layers.py", query_params=url.said(layer=name))


def _choose(name: str) -> None:
    st.session_state[state.LAYER] = name
