"""The network before and after on Explore: closed it costs nothing, a click leads to Layers."""

import pytest

from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ui.shared import session
from rsdtr.ui.shared.figures import clicked
from tests.support.pages import DIGITS, app

LAYER = "layer2.0.conv1"


def chosen(name: str) -> dict[str, object]:
    """What the browser tells of a click on a bar."""
    point = {"customdata": name, "curve_number": 0, "point_index": 0}
    return {"selection": {"points": [point], "point_indices": [0], "box": [], "lasso": []}}


def test_nothing_is_drawn_until_it_is_opened():
    test = app(eps="0.5")
    assert session.PARTS_COLOUR not in test.session_state
    test.session_state[session.PARTS] = True
    test.run()
    assert not test.exception
    assert test.session_state[session.PARTS_COLOUR] == "gain"
    assert {"stage", "block", "convolution"} == set(test.dataframe[0].value["level"])


def test_a_clicked_bar_opens_its_layer():
    test = app(eps="0.5")
    test.session_state["before_after"] = chosen(LAYER)
    test.run()
    assert not test.exception
    test.button(key="open_bar").click().run()
    assert not test.exception
    assert test.title[0].value == "Layers"
    assert test.selectbox(key=session.LAYER).value == LAYER


@pytest.mark.parametrize(
    ("found", "name"),
    [(LAYER, LAYER), ([LAYER], LAYER), (None, None), ([], None), ("of another model", None)],
)
def test_a_click_is_of_one_layer_of_the_plan_or_of_none(found, name):
    made = plan(profile(load_model(DIGITS), model_spec(DIGITS)), 0.5)
    assert clicked({"points": [{"customdata": found}]}, made) == name
    assert clicked({"points": [{}]}, made) is None
    assert clicked({"points": []}, made) is None
