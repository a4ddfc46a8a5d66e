"""The Learn page: every step, its control, the locked step, and addresses that hold nonsense."""

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.learn.text import STEPS
from rsdtr.models.model_loading import load_model
from rsdtr.search.paper_rule import candidates, smallest
from rsdtr.ui.shared import session
from tests.support.pages import DIGITS, opened

SMALL = "layer1.0.conv1"
CONTROLS = {3: session.LESSON_R0, 4: session.LESSON_SHIFT, 5: session.LESSON_COMPONENTS,
                   6: session.LESSON_STAGE}  # fmt: skip


def learn(**query: str) -> AppTest:
    test = opened("pages/learn.py", **({"eps": "0.6", "layer": SMALL} | query))
    assert not test.exception
    return test


def charts(test: AppTest) -> list[str]:
    return [element.proto.spec for element in test.get("plotly_chart")]


@pytest.fixture(scope="module")
def found():
    return candidates(load_model(DIGITS).get_submodule(SMALL).weight, 0.6)


def test_next_shows_every_step_with_its_figure_and_formula():
    test = learn()
    for number, step in enumerate(STEPS, 1):
        assert not test.exception
        assert not test.error
        assert test.header[0].value == f"{number}. {step.title}"
        assert charts(test)
        assert test.latex[0].value.strip("$\n ") == step.formula
        assert any(step.notebook in caption.value.replace("\\", "") for caption in test.caption)
        assert test.query_params.get("lesson", "1") == str(number)
        assert test.query_params["layer"] == SMALL
        assert test.query_params["eps"] == "0.6"
        on = next(button for button in test.button if button.label == "Next")
        assert on.disabled == (number == len(STEPS))
        if not on.disabled:
            on.click().run()


def test_the_control_of_each_step_moves_its_figure():
    test = learn(lesson="2")
    for number, key in CONTROLS.items():
        test.button_group(key=session.LESSON).set_value(str(number)).run()
        slider = test.select_slider(key=key)
        before = charts(test)
        other = next(option for option in slider.options if option != str(slider.value))
        slider.set_value(other if number == 6 else int(other)).run()
        assert not test.exception
        assert charts(test) != before


def test_dragging_eps_moves_the_cut():
    test = learn(lesson="2")
    before = charts(test)
    test.slider(key=session.EPS).set_value(0.3).run()
    assert charts(test) != before
    assert test.query_params["eps"] == "0.3"


def test_the_best_split_of_the_first_shift_is_named(found):
    test = learn(lesson="3")
    best = smallest([ring for ring in found if ring.shift == 0])
    assert any(f"{best.storage:,}, at r0 = {best.r0}" in text.value for text in test.markdown)


def test_a_locked_step_shows_its_one_control_and_lets_itself_be_opened():
    test = learn(lesson="3", lock="1")
    assert not test.slider
    assert not test.selectbox
    assert not test.button_group
    assert [slider.key for slider in test.select_slider] == [session.LESSON_R0]
    assert test.button[0].label == "Play"
    test.button[-1].click().run()
    assert not test.exception
    assert "lock" not in test.query_params
    assert test.selectbox(key=session.LAYER).value == SMALL
    assert test.slider(key=session.EPS).value == 0.6
    assert test.header[0].value.startswith("3. ")


@pytest.mark.parametrize(
    "query",
    [
        {"lesson": "9"},
        {"lesson": "<b>"},
        {"lesson": "1", "lock": "yes"},
        {"lesson": "1", "layer": "no.such.layer"},
        {"lesson": "1", "eps": "nan", "model": "resnet-nine"},
    ],
)
def test_nonsense_in_the_address_is_read_as_if_it_was_not_there(query):
    test = learn(**query)
    assert not test.error
    assert test.header[0].value.startswith("1. ")
    assert test.selectbox(key=session.MODEL).value == DIGITS
    assert "lock" not in query or test.selectbox(key=session.LAYER).value == SMALL


def test_what_other_pages_ask_for_survives_the_lesson():
    test = learn(layers="all", ask="target", pcr="5", own="layer1.0.conv1:0.4")
    test.run()
    test.switch_page("pages/layers.py").run()
    assert not test.exception
    assert test.button_group(key=session.POLICY).value == "all"
    assert test.number_input(key=session.PCR).value == 5
    assert test.query_params["own"] == "layer1.0.conv1:0.4"


def test_the_quiz_is_graded_with_reasons(found):
    test = learn(lesson="8")
    assert len(test.radio) == 6
    test.radio[0].set_value("0.346")
    storage = smallest(found).storage
    test.radio[3].set_value(f"{storage:,}")
    test.radio[4].set_value(test.radio[4].options[0])
    next(button for button in test.button if "Check" in button.label).click().run()
    assert not test.exception
    assert any(f"= {storage:,}." in box.value for box in test.success)
    assert len(test.success) + len(test.error) == 6
    assert sum("Not answered" in box.value for box in test.error) == 3


def test_a_network_without_pictures_says_so():
    test = learn(lesson="6", model="resnet18", weights="none", layer="layer1.0.conv1")
    assert any("no picture to step through" in info.value for info in test.info)
    assert len(charts(test)) == 1
