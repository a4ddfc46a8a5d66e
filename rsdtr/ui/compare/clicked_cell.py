"""Cells of a comparison looked at closer: one opened in Explore, two side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import streamlit as st

from rsdtr.baselines.catalogue import title_of
from rsdtr.baselines.comparison import Cell
from rsdtr.charts.comparison import pair_figure
from rsdtr.charts.tables import pair_table
from rsdtr.planning.model_profile import ModelProfile
from rsdtr.search.candidate import GRID
from rsdtr.ui.plan import layer_overrides
from rsdtr.ui.shared import address, columns, session
from rsdtr.ui.shared.figures import chart, csv_button
from rsdtr.ui.shared.markdown import plain

RULES = {"rsdtr-paper": "paper", "rsdtr-tight": "tight", "rsdtr-target": "tight"}
TARGET = "rsdtr-target"


def picked(selection: Any, cells: Sequence[Cell]) -> Cell | None:
    """The cell of the point that was clicked; None without a click, or of another comparison."""
    for point in selection["points"]:
        found = point.get("customdata")
        for cell in cells:
            if found is not None and [cell.method, cell.asked] == list(found):
                return cell
    return None


def question(cell: Cell) -> dict[str, object] | None:
    """What Explore asks for where it shows this cell, by session key; None where it cannot.

    Its slider moves in hundredths: ε_p is rounded up, so that the network is no larger.
    """
    rule = RULES.get(cell.method)
    if rule is None:
        return None
    usual = {session.RULE: rule, session.OBJECTIVE: "storage", session.POLICY: "paper"}
    if cell.method == TARGET:
        return usual | {session.ASK: "target", session.KIND: "pcr", session.PCR: cell.asked}
    if cell.eps is None:
        return None
    eps = min(GRID[-1], math.ceil(round(100 * cell.eps, 6)) / 100)
    return usual | {session.ASK: "eps", session.EPS: max(GRID[0], eps)}


def show_picked(cell: Cell | None) -> None:
    """The cell that was clicked, and the way to Explore if it is one that Explore can show."""
    if cell is None:
        st.caption("Click a point: a network of RSDTR can be opened in Explore.")
        return
    asked = question(cell)
    name = f"**{plain(title_of(cell.method))}** at PCR {cell.asked:g}"
    with st.container(horizontal=True, vertical_alignment="center", key="picked"):
        if asked is None:
            st.markdown(
                f"{name}: Explore plans RSDTR's rings only, so this one cannot be opened there.",
                width="content",
            )
            return
        st.markdown(f"{name}: {_in_explore(cell, asked)}", width="content")
        if st.button(
            "Open in Explore", key="open", icon=":material/tune:", on_click=partial(_ask, asked)
        ):
            st.switch_page("pages/explore.py", query_params=address.said())


def _in_explore(cell: Cell, asked: dict[str, object]) -> str:
    if cell.method == TARGET:
        return "Explore weighs damage by the kernels' errors, until it is measured on images there."
    return f"εₚ {cell.eps:g}; Explore's slider takes {asked[session.EPS]:.2f}."


def _ask(asked: dict[str, object]) -> None:
    layer_overrides.forget()
    for key, value in asked.items():
        st.session_state[key] = value


def show_pair(cells: Sequence[Cell], profile: ModelProfile) -> None:
    """Two cells layer by layer; nothing where there are no two."""
    known = [cell for cell in cells if cell.failed is None]
    if len(known) < 2:
        return
    st.header("Two side by side")
    names = [f"{title_of(cell.method)} at PCR {cell.asked:g}" for cell in known]
    left, right = st.columns(2, gap="medium")
    first = left.selectbox("A", names, index=0, key=session.COMPARED_A)
    second = right.selectbox("B", names, index=1, key=session.COMPARED_B)
    pair = known[names.index(first)], known[names.index(second)]
    table = pair_table(pair, profile)
    chart(
        pair_figure(table, (first, second)),
        key="pair",
        alt="Storage and relative error of every layer in both networks",
    )
    st.caption(
        "Above, scalars stored for each convolution; below, the relative error of its kernel: "
        "where a method spends its error. No bar below: the layer is as it was, or lost whole "
        "channels, which has no such error."
    )
    st.dataframe(
        table,
        hide_index=True,
        placeholder="–",
        column_config=columns.PAIR_COLUMNS,
        key="pair-table",
        alt="Both networks layer by layer",
    )
    csv_button(table.to_csv(index=False), f"{profile.model}-a-b", "pair-csv")
