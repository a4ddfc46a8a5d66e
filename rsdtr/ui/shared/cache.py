"""A bounded cache for long calculations that report progress, each done once for all readers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import streamlit as st

from rsdtr.ui.shared import session

PATIENCE = 0.2  # seconds between two looks whether the reader still waits
Value = TypeVar("Value")


class Memo(Generic[Value]):
    """Least recently used results, shared by all sessions of the server.

    st.cache_data cannot draw a progress bar that lies outside the cached function, so calculations
    of more than a second are kept here. Of several sessions that ask for the same key at once, one
    calculates; if it gives up, because its reader has moved on, the next one does.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._results: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._turns: dict[Hashable, threading.Lock] = {}  # of the keys that are being calculated

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._results

    def known(self, key: Hashable) -> Value | None:
        """The result for `key` if it is there."""
        with self._lock:
            return self._results.get(key)

    def clear(self) -> None:
        """Forget every result; what is being calculated at the moment is kept when it is there."""
        with self._lock:
            self._results.clear()

    def of(self, key: Hashable, calculate: Callable[[], Value]) -> Value:
        """The result for `key`, calculated if it is not there; one that `calculate` asks for by
        itself must have another key.
        """
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
            turn = self._turns.setdefault(key, threading.Lock())
        while not turn.acquire(timeout=PATIENCE):
            _stop_if_asked()
        try:
            with self._lock:
                if key in self._results:
                    return self._results[key]
            value = calculate()
            with self._lock:
                self._results[key] = value
                while len(self._results) > self._max_entries:
                    self._results.popitem(last=False)
            return value
        finally:
            with self._lock:
                self._turns.pop(key, None)
            turn.release()


def _stop_if_asked() -> None:
    """Ends this run of the page if its reader has moved on: Streamlit looks for that, among other
    places, wherever the session's state is looked into.
    """
    _ = session.MODEL in st.session_state
