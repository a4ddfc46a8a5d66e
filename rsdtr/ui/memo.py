"""A bounded cache for long calculations that report progress."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Memo(Generic[Value]):
    """Least recently used results, shared by all sessions of the server.

    st.cache_data cannot draw a progress bar that lies outside the cached function, so calculations
    of more than a second are kept here. Two sessions that ask for the same key at once may both
    calculate it: that costs time and gives the same result.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._results: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._results

    def known(self, key: Hashable) -> Value | None:
        """The result for `key` if it is there."""
        with self._lock:
            return self._results.get(key)

    def of(self, key: Hashable, calculate: Callable[[], Value]) -> Value:
        """The result for `key`, calculated if it is not there."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        value = calculate()
        with self._lock:
            self._results[key] = value
            while len(self._results) > self._max_entries:
                self._results.popitem(last=False)
        return value
