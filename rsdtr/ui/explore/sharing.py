"""What the Explore page hands on: the pinned configuration, code, the report and the card."""

from __future__ import annotations

import streamlit as st

from rsdtr.charts.html_report import report_html
from rsdtr.charts.tables import pins_table
from rsdtr.exports.model_card import ModelCard
from rsdtr.ui.shared import columns, numbers, session
from rsdtr.ui.shared.markdown import plain


def pinned() -> ModelCard | None:
    """The configuration that was pinned as A, in this session."""
    found: ModelCard | None = st.session_state.get(session.PIN)
    return found


def offer(now: ModelCard) -> None:
    """Buttons: pin, compare with what is pinned, copy as a command or as Python, report, card."""
    stem = numbers.file_stem(now.plan)
    before = pinned()
    with st.container(horizontal=True, vertical_alignment="center", key="sharing"):
        st.button(
            "Pin as A" if before is None else "Pin this as A",
            key="pin",
            icon=":material/push_pin:",
            on_click=_pin,
            args=(now,),
            help="Keeps these figures: then each shows its change since.",
        )
        if before is not None:
            st.button("Unpin", key="unpin", icon=":material/close:", on_click=_pin, args=(None,))
        with st.popover("Copy as command", icon=":material/terminal:"):
            st.code(now.command, language="bash", wrap_lines=True)
        with st.popover("Copy as Python", icon=":material/code:"):
            st.code(now.python, language="python")
        st.download_button(
            "Report (HTML)",
            lambda: _report(now),
            file_name=f"{stem}.html",
            mime="text/html",
            key="report",
            icon=":material/description:",
            on_click="ignore",
            help="One file with live figures (about 5 MB) that needs nothing else, not even a "
            "network.",
        )
        st.download_button(
            "Model card (JSON)",
            lambda: now.model_dump_json(indent=1),
            file_name=f"{stem}-card.json",
            mime="application/json",
            key="card",
            icon=":material/data_object:",
            on_click="ignore",
        )
    if before is not None:
        _compare(before, now)


def _compare(before: ModelCard, now: ModelCard) -> None:
    with st.expander(plain(f"A | B: {before.label} | {now.label}"), icon=":material/compare:"):
        st.dataframe(
            pins_table(before, now),
            hide_index=True,
            placeholder="–",
            column_config=columns.PIN_COLUMNS,
            key="pins",
            alt="The pinned configuration A beside the present one, B",
        )
        if before.plan.model != now.plan.model:
            st.caption("A and B are different networks: only ratios can be compared.")


def _report(now: ModelCard) -> str:
    return report_html(now)


def _pin(now: ModelCard | None) -> None:
    st.session_state[session.PIN] = now
