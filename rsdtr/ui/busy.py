"""A word beside the buttons that take times: what else this machine is doing now."""

from __future__ import annotations

import psutil
import streamlit as st

from rsdtr.planning.grid_search import cores
from rsdtr.ui import warming
from rsdtr.ui.cached import Network


def warn(of: Network) -> None:
    """Why times that are taken now would be too long, if they would."""
    if warming.is_working(of):
        _warn("Rings are being searched at the moment, on every core")
    elif (load := psutil.getloadavg()[0]) > cores() / 2:
        _warn(f"Other programs are busy here (a load of {load:.1f} on {cores()} cores)")


def _warn(why: str) -> None:
    st.caption(f":material/warning: {why}: times will be truer when that is over.")
