"""A figure on the screen that becomes another one, by what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import plotly.graph_objects as go

_OF_THE_WIDGET = "uid"  # each trace is given one when it is put on the screen


class LiveFigure(go.FigureWidget):
    """A figure that is told to the screen as a whole, and then by what changes.

    Plotly's own opens its connection empty and sends traces and layout after it; on a busy machine
    what was sent is sometimes drawn too early, as an empty figure.
    """

    _whole = False

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(figure)
        self._whole = True
        self.open()

    def open(self) -> None:
        """Tell the screen of this widget, once there is all of it."""
        if self._whole:
            super().open()

    def become(self, figure: go.Figure) -> None:
        """Be the other figure, in one message where the traces are of the same kinds.

        Whatever the reader has zoomed into, or switched off in the legend, stays as it is.
        """
        now, then = self.to_plotly_json(), figure.to_plotly_json()
        if [trace["type"] for trace in now["data"]] != [trace["type"] for trace in then["data"]]:
            self.data = ()
            self.add_traces(figure.data)
            now["data"] = then["data"]
        with self.batch_update():
            trace: Any  # a scatter, a bar, …
            for trace, before, after in zip(self.data, now["data"], then["data"], strict=True):
                for path, value in _differences(before, after):
                    trace[path] = value
            for path, value in _differences(now["layout"], then["layout"]):
                self.layout[path] = value


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, object]]:
    """Paths and new values of what is not the same; None for what is no longer there."""
    for key in dict.fromkeys((*before, *after)):
        if key == _OF_THE_WIDGET:
            continue
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{place}{key}.")
        elif old != new:
            yield f"{place}{key}", new
