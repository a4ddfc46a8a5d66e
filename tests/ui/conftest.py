"""Pages start with empty caches, and start no worker: a test that wants one asks for it."""

import sys

import pytest
import streamlit as st

from rsdtr.jobs import job_queue
from rsdtr.system import processes
from rsdtr.ui.explore import curve
from rsdtr.ui.jobs import job_view
from rsdtr.ui.plan import fastest_rings, latency, search_status
from rsdtr.ui.shared import frame
from rsdtr.ui.shared.cache import Memo


def forget() -> None:
    """Empty what pages keep for all sessions of a server."""
    st.cache_data.clear()
    st.cache_resource.clear()
    for name, module in list(sys.modules.items()):
        if name.startswith("rsdtr.ui."):
            for value in vars(module).values():
                if isinstance(value, Memo):
                    value.clear()


@pytest.fixture(autouse=True)
def _cold(tmp_path, monkeypatch):
    forget()
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_status, "queue_search", lambda *_: None)
    monkeypatch.setattr(frame, "THREADS", 1)
    monkeypatch.setattr(search_status, "POLL_SECONDS", None)
    monkeypatch.setattr(curve, "queue_curve", lambda *_: None)
    monkeypatch.setattr(curve, "POLL_SECONDS", None)
    monkeypatch.setattr(latency, "queue_layer_times", lambda *_, **__: None)
    monkeypatch.setattr(latency, "POLL_SECONDS", None)
    monkeypatch.setattr(fastest_rings, "POLL_SECONDS", None)
    monkeypatch.setattr(job_view, "POLL_SECONDS", None)
    monkeypatch.setenv("RSDTR_JOBS", "1")
    yield
    if processes.started():  # jobs of a test that has failed
        for job in job_queue.listed():
            job_queue.cancel(job.id)
            if job.worker is not None:
                job.worker.kill()
