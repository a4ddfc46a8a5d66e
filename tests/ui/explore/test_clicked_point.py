"""Points of a figure that are clicked: a button asks for them, and nothing else moves."""

import json

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.ui.explore.clicked_point import picked
from rsdtr.ui.shared import session
from tests.support.pages import app, opened


def click(test: AppTest, key: str, found: object) -> None:
    """What the browser tells of a click on the point with this customdata."""
    test.session_state[key] = {"selection": {"points": [{"customdata": found}]}}
    test.run()
    assert not test.exception


def buttons(test: AppTest) -> set[str]:
    return {button.key for button in test.button if button.key}


@pytest.mark.parametrize(
    ("found", "kind", "asked"),
    [
        (["ε_p 0.4", 0.4, 2.5], "pcr", {"ask": "eps", "eps": 0.4}),
        (["εₚ 0.4", 0.4, 2.5, 97.0, 99.0], "pcr", {"ask": "eps", "eps": 0.4}),
        (0.35, "fcr", {"ask": "eps", "eps": 0.35}),
        (["PCR 3.5678", None, 3.5678], "pcr", {"ask": "target", "kind": "pcr", "pcr": 3.56}),
        (["FCR 2.3", None, 2.3], "fcr", {"ask": "target", "kind": "fcr", "fcr": 2.3}),
        (["0.12 MB", None, 0.1234], "mb", {"ask": "target", "kind": "mb", "mb": 0.123}),
        (["FCR 0.8", None, 0.8], "fcr", None),  # no target is below 1
        ("layer1.0.conv1", "pcr", None),
        ([1, 2], "pcr", None),
        (None, "pcr", None),
    ],
)
def test_what_a_point_asks_for(found, kind, asked):
    assert picked({"points": [{"customdata": found}]}, kind) == asked
    assert picked({"points": [{}]}, kind) is None
    assert picked({"points": []}, kind) is None


def test_a_clicked_target_is_offered_and_then_asked_for():
    test = app(eps="0.5")
    click(test, "fronts", ["PCR 4.177", None, 4.177])
    assert test.slider(key=session.EPS).value == 0.5  # until the button is pressed
    assert test.button(key="ask_front").label == "Ask for PCR 4.17"
    test.button(key="ask_front").click().run()
    assert not test.exception
    assert test.number_input(key=session.PCR).value == 4.17
    assert test.query_params[session.PCR] == "4.17"
    assert "ask_front" not in buttons(test)  # it is what the page shows

    click(test, "ratios", 0.3)
    test.button(key="ask_ratio").click().run()
    assert test.slider(key=session.EPS).value == 0.3
    test.slider(key=session.EPS).set_value(0.4).run()  # what was clicked holds nobody back
    assert test.slider(key=session.EPS).value == 0.4


def test_a_clicked_cell_is_drawn_as_a_ring():
    test = app(eps="0.6")
    test.switch_page("pages/layers.py").run()
    table = test.dataframe[0].value
    won = table[table["chosen"]].iloc[0]
    other = table[~table["chosen"] & table["storage (scalars)"].notna()].iloc[0]
    assert title(test, "ring").startswith(f"★ The ring: {won['storage (scalars)']:,}")
    click(test, "candidates", [int(other["shift"]), int(other["r0"])])
    name = f"Shift {other['shift']}, r<sub>0</sub> {other['r0']}"
    assert title(test, "ring").startswith(f"{name}: {other['storage (scalars)']:,}")
    click(test, "candidates", [9, 9])  # of another search
    assert title(test, "ring").startswith("★")


def title(test: AppTest, key: str) -> str:
    """Of the figure with this key."""
    (chart,) = (found for found in test.get("plotly_chart") if found.proto.id.endswith(f"-{key}"))
    return json.loads(chart.proto.spec)["layout"]["title"]["text"]


def test_a_clicked_damage_opens_its_layer():
    test = opened("pages/learn.py", eps="0.5", lesson="7")
    click(test, "damages", ["layer2.0.conv1", 0.5, 0.4])
    test.button(key="open_damage").click().run()
    assert not test.exception
    assert test.title[0].value == "Layers"
    assert test.selectbox(key=session.LAYER).value == "layer2.0.conv1"


def test_a_link_to_another_page_loses_neither_layer_nor_pins():
    test = app(own="layer1.0.conv2:0.4")
    test.switch_page("pages/layers.py").run()
    test.selectbox(key=session.LAYER).set_value("layer1.0.conv1").run()
    for path in ("pages/explore.py", "pages/layers.py"):
        test.query_params.clear()
        test.switch_page(path).run()
        assert test.query_params[session.OWN] == "layer1.0.conv2:0.4"
    assert test.selectbox(key=session.LAYER).value == "layer1.0.conv1"


def test_the_points_of_a_figure_are_a_table_once_it_is_opened():
    test = app(eps="0.5")
    before = len(test.dataframe), len(test.get("download_button"))
    test.session_state["ratios_points"] = True
    test.run()
    assert not test.exception
    assert (len(test.dataframe), len(test.get("download_button"))) == (before[0] + 1, before[1] + 1)
    table = next(d.value for d in test.dataframe if "series" in d.value)
    now = table[table["series"] == "PCR (parameters) now"].iloc[0]
    assert now["Prescribed relative error εₚ"] == 0.5
