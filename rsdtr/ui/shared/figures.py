"""Figures on a page: drawn, clicked, with their points as a table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from rsdtr.charts.style import points_table
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.shared import address, session
from rsdtr.ui.shared.markdown import plain


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
        st.switch_page("pages/layers.py", query_params=address.said(layer=name))


def _choose(name: str) -> None:
    st.session_state[session.LAYER] = name


def chart(figure: go.Figure, key: str, alt: str, stem: str | None = None) -> None:
    """A figure in the page's width with a text for those who cannot see it.

    stem: of the CSV of its points, offered under it; None where the page has a table of them.
    """
    st.plotly_chart(figure, key=key, alt=alt, width="stretch", config={"displaylogo": False})
    if stem is not None:
        offer_points(figure, key, alt, stem)


def csv_button(csv: str | Callable[[], str], stem: str, key: str | None = None) -> None:
    """Hands out the table above as STEM.csv; csv: its text, or what makes it once it is asked."""
    st.download_button(
        "Download this table (CSV)",
        csv,
        file_name=f"{stem}.csv",
        mime="text/csv",
        key=key,
        icon=":material/table:",
        on_click="ignore",
    )


def chart_to_click(figure: go.Figure, key: str, alt: str, stem: str | None = None) -> Any:
    """The same with points that can be clicked; the selection: `points`, each a mapping."""
    event = st.plotly_chart(
        figure, key=key, alt=alt, width="stretch", config={"displaylogo": False},
        on_select="rerun", selection_mode="points",
    )  # fmt: skip
    if stem is not None:
        offer_points(figure, key, alt, stem)
    return event["selection"]


def offer_points(figure: go.Figure, key: str, alt: str, stem: str) -> None:
    """The points of a figure as a table and as STEM-KEY.csv; nothing is made until it is opened."""
    st.fragment(_points)(figure, key, alt, stem)


def _points(figure: go.Figure, key: str, alt: str, stem: str) -> None:
    box = st.popover(
        "Table", key=f"{key}_points", icon=":material/table:", type="tertiary", on_change="rerun"
    )
    if not box.open:
        return
    with box:
        table = points_table(figure)
        real = table.select_dtypes("Float64")
        st.dataframe(
            table,
            hide_index=True,
            placeholder="–",
            width="content",
            column_config={name: st.column_config.NumberColumn(format="%.4g") for name in real},
            key=f"{key}_table",
            alt=f"{alt}, in numbers",
        )
        csv_button(table.to_csv(index=False), f"{stem}-{key}", f"{key}_csv")
