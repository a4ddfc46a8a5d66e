"""The frame of every page: settings, navigation, and errors as one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator

from rsdtr.errors import RsdtrError
from rsdtr.ui.shared import session
from rsdtr.ui.shared.markdown import plain, sentence

THREADS = 2  # the server answers several pages: heavy work must not take the whole machine
# A file of ours: Streamlit would fetch the picture of a named icon from the network.
ICON = Path(__file__).with_name("icon.png")
PAGES = (
    ("app.py", "Explore", ":material/tune:"),
    ("pages/1_Layers.py", "Layers", ":material/grid_view:"),
    ("pages/2_Recover.py", "Recover", ":material/healing:"),
    ("pages/3_Compare.py", "Compare", ":material/compare_arrows:"),
    ("pages/4_Export.py", "Export", ":material/download:"),
    ("pages/5_Learn.py", "Learn", ":material/school:"),
)

# Streamlit's captions are its text at 60 %: 4.2 : 1 on white, where 4.5 : 1 is asked for; 75 % is
# 6.9 : 1. White on the bright blue of a dark page is 2.3 : 1, that page's background on it 8 : 1.
# Streamlit cuts off a formula wider than the page, which may break at its arrows instead, and then
# needs no scrolling, which no key does. It fades what is being drawn anew to a third: in the
# sidebar, the line of a search would come and go. It puts columns below each other on telephones
# only: two figures side by side in a window of half a screen would have their titles cut off. The
# cards of Explore stand in pairs there, none alone in a line.
STYLE = Path(__file__).with_name("page.css")

_log = logging.getLogger("rsdtr.ui")


@contextmanager
def page(title: str, lead: str) -> Iterator[None]:
    """Frame a page: an RsdtrError is shown as its sentence, the unforeseen as a neutral one."""
    st.set_page_config(page_title=f"{title} · RSDTR Explorer", page_icon=ICON, layout="wide")
    _let_in()
    session.enter(title)
    torch.set_num_threads(THREADS)
    with st.sidebar:
        st.markdown("### RSDTR Explorer")
        for path, label, icon in PAGES:
            st.page_link(path, label=label, icon=icon, width="stretch")
        if st.user.get("is_logged_in"):
            st.button("Log out", key="log_out", icon=":material/logout:", on_click=st.logout)
    st.html(STYLE)
    st.title(title)
    st.markdown(lead)
    try:
        yield
    except RsdtrError as error:
        st.error(plain(sentence(error)), icon=":material/info:")
    except Exception:
        _log.exception("page %s failed", title)
        st.error(
            "Something went wrong on our side; the details are in the server's log. "
            "Choose something else, or reload the page.",
            icon=":material/error:",
        )


def _let_in() -> None:
    """Where the server's secrets have an [auth] section, a page is for those who have logged in.

    Streamlit tells whether they have; without that section it tells nothing, and everybody is in.
    """
    if st.user.get("is_logged_in", True):
        return
    st.title("RSDTR Explorer")
    st.button("Log in", key="log_in", type="primary", icon=":material/login:", on_click=st.login)
    st.stop()


def pair(key: str, widths: Sequence[int] = (1, 1)) -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two columns for figures, below each other where the window is narrow."""
    left, right = st.container(key=f"pair-{key}").columns(widths, gap="large")
    return left, right


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for (done, total) callbacks, drawn once the work has taken a third of a second."""
    slot = st.empty()
    started = perf_counter()

    def show(done: int, total: int) -> None:
        if perf_counter() - started > 0.3:
            slot.progress(min(done / max(total, 1), 1.0), text=f"{text}: {done:,} of {total:,}")

    try:
        yield show
    finally:
        slot.empty()
