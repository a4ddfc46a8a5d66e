"""Figures that become others: what is on the screen in the end is the other figure."""

import copy

import plotly.graph_objects as go
import pytest

from rsdtr.notebook.live_figure import LiveFigure


def bars(*heights: float, title: str = "a", **layout: object) -> go.Figure:
    return go.Figure(
        [{"type": "bar", "x": list("abc")[: len(heights)], "y": list(heights), "name": title}],
        {"title": {"text": title}, "width": 300} | layout,
    )


def without_empty(told: object) -> object:
    """What a figure says, without the ids that a widget gives its traces, and without what is said
    to be nothing."""
    if isinstance(told, dict):
        inner = {key: without_empty(value) for key, value in told.items() if key != "uid"}
        return {key: value for key, value in inner.items() if value not in (None, {}, [])}
    if isinstance(told, list) and told and isinstance(told[0], dict):
        return [without_empty(each) for each in told]
    return told


LINE = {"type": "line", "x0": 0, "x1": 1, "y0": 2, "y1": 2}
OTHERS = {
    "equal": bars(1, 2, 3),
    "other values": bars(3, 2),
    "another title": bars(1, 2, 3, title="b"),
    "a shape": bars(1, 2, 3, shapes=[LINE], annotations=[{"text": "here"}]),
    "more traces": go.Figure([*bars(1, 2).data, {"type": "scatter", "y": [1, 2]}]),
    "other traces": go.Figure([{"type": "heatmap", "z": [[1, None], [3, 4]]}]),
    "none": go.Figure(),
}


@pytest.mark.parametrize("other", OTHERS)
def test_it_becomes_the_other_figure_and_comes_back(other):
    figure = LiveFigure(bars(1, 2, 3))
    for wanted in (OTHERS[other], bars(1, 2, 3)):
        figure.become(wanted)
        assert without_empty(figure.to_plotly_json()) == without_empty(wanted.to_plotly_json())


def test_the_screen_is_told_once_of_what_differs_and_of_nothing_else(monkeypatch):
    figure = LiveFigure(bars(1, 2, 3))
    told = []
    monkeypatch.setattr(figure, "_send_update_msg", lambda **message: told.append(message))
    figure.become(bars(1, 5, 3, title="b"))
    assert told == [
        {
            "restyle_data": {"y": [[1, 5, 3]], "name": ["b"]},
            "relayout_data": {"title.text": "b"},
            "trace_indexes": [0],
        }
    ]


def test_it_is_told_to_the_screen_with_all_that_it_has(monkeypatch):
    states = []
    monkeypatch.setattr(
        go.FigureWidget, "open", lambda self: states.append(copy.deepcopy(self.get_state()))
    )
    LiveFigure(bars(1, 2, 3))
    (state,) = states
    assert [trace["y"] for trace in state["_widget_data"]] == [[1, 2, 3]]
    assert state["_widget_layout"]["width"] == 300
