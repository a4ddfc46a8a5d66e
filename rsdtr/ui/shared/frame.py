"""The frame of every page, as app.py puts it around them: errors are one sentence."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from time import perf_counter

import streamlit as st
import torch
from streamlit.delta_generator import DeltaGenerator

from rsdtr.errors import RsdtrError
from rsdtr.ui.shared import session
from rsdtr.ui.shared.markdown import plain, sentence

FOLD_SECONDS = 0.8  # that a browser has for the first screen alone
THREADS = 2  # the server answers several pages: heavy work must not take the whole machine
# A file of ours: Streamlit would fetch the picture of a named icon from the network.
ICON = Path(__file__).with_name("icon.png")

# Streamlit's captions are its text at 60 %: 4.2 : 1 on white, where 4.5 : 1 is asked for; 75 % is
# 6.9 : 1. White on the bright blue of a dark page is 2.3 : 1, that page's background on it 8 : 1.
# Streamlit cuts off a formula wider than the page, which may break at its arrows instead, and then
# needs no scrolling, which no key does. It fades what is being drawn anew to a third: in the
# sidebar, the line of a search would come and go. It puts columns below each other on telephones
# only: two figures side by side in a window of half a screen would have their titles cut off. The
# cards of Explore stand in pairs there, none alone in a line.
STYLE = Path(__file__).with_name("page.css")

_log = logging.getLogger("rsdtr.ui")


_framed: ContextVar[bool] = ContextVar("framed", default=False)
_imported: set[Path] = set()
_importing = Lock()


@contextmanager
def frame(title: str) -> Iterator[None]:
    """Frame a page: an RsdtrError is shown as its sentence, the unforeseen as a neutral one."""
    session.enter(title)
    torch.set_num_threads(THREADS)
    with st.sidebar:
        st.markdown("### RSDTR Explorer")
        if st.user.get("is_logged_in"):
            st.button("Log out", key="log_out", icon=":material/logout:", on_click=st.logout)
    st.html(STYLE)
    st.title(title)
    framed = _framed.set(True)
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
    finally:
        _framed.reset(framed)


def lead(text: str) -> None:
    """What a page is there for, in its first lines.

    Until app.py has run once, Streamlit takes each script in pages/ for a page of its own: whoever
    comes first to a server could ask for one and pass by the log-in. They are led to app.py.
    """
    if not _framed.get():
        st.switch_page("app.py", query_params=st.query_params.to_dict())
    st.markdown(text)


def fold() -> None:
    """Where the first screen of a page ends: in a session's first run, what is below comes later.

    A browser draws all that it was sent before it shows any of it, and needs as long for what
    nobody sees yet as for what everybody waits for.
    """
    if session.UNFOLDED not in st.session_state:
        st.fragment(_unfold, run_every=FOLD_SECONDS)()
        session.break_off()  # a slow browser may not have drawn these widgets when it gets the next
        st.stop()


def _unfold() -> None:
    """The first time with the page, and then when the browser asks, which has drawn it by then."""
    if session.UNFOLDED in st.session_state:
        st.rerun()
    st.session_state[session.UNFOLDED] = True


def import_for(script: Path) -> None:
    """Import what a page's script imports, if no visitor before has: one page at a time.

    A server draws each visitor's page in a thread of its own. Where two threads import the modules
    of one package in different orders, each waits for the other, and Python ends that by handing
    one of them a module that is half made.
    """
    if script in _imported:
        return
    tree = ast.parse(script.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    with _importing:
        exec(compile(tree, str(script), "exec"), {})
    _imported.add(script)


def log_in() -> None:
    """What those see who have not logged in."""
    st.title("RSDTR Explorer")
    st.button("Log in", key="log_in", type="primary", icon=":material/login:", on_click=st.login)


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
