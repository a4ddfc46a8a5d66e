"""Random walks: on every page the controls are changed at random, and none may end in a traceback.

A few changes here; `make soak` makes a hundred on every page (RSDTR_WALK=100).
"""

import os
import random

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.ui.shared import session
from tests.support.pages import EXPLORE, PAGES, opened

CHANGES = int(os.environ.get("RSDTR_WALK", "12"))
# Other models need weights from elsewhere. The buttons start processes or take half a minute, and
# have tests of their own.
LEFT_ALONE = {
    session.MODEL, "finetune", "refit", "estimate", "export", "damage", "search", "measure_latency",
}  # fmt: skip
# What a reader may type into the address, and for a data set.
ADDRESSES = (
    ("eps", "0.35"), ("eps", "nan"), ("ask", "target"), ("ask", "eps"), ("rule", "<b>"),
    ("layer", "layer2.0.conv1"), ("layer", "no.such.layer"), ("own", "layer1.0.conv1:0.4"),
    ("own", "::"), ("lesson", "6"), ("lesson", "99"), ("lock", "1"), ("lock", "0"),
    ("kind", "mb"), ("mb", "-1"), ("pcr", "1e9"), ("weights", "none"), ("job", "../.."),
)  # fmt: skip
FOLDERS = ("", "digits", "/no/such/folder", "[bold](x)")


def value_for(control, dice: random.Random):
    """What a reader could give this control."""
    match control.type:
        case "button":
            return True
        case "toggle":
            return not control.value
        case "text_input":
            return dice.choice(FOLDERS)
        case "slider":
            steps = round((control.max - control.min) / control.step)
            return round(control.min + dice.randint(0, steps) * control.step, 6)
        case "number_input":
            return dice.choice((None, control.min, control.max))
        case "button_group" if not control._is_single_select:
            return dice.sample(control.options, dice.randint(0, len(control.options)))
    return dice.choice(control.options)


def change_something(test: AppTest, dice: random.Random) -> str:
    """Change one control, or the address; says what."""
    if dice.random() < 0.1:
        name, value = dice.choice(ADDRESSES)
        test.query_params[name] = value
        return f"?{name}={value}"
    controls = (
        *test.selectbox, *test.select_slider, *test.radio, *test.button_group, *test.slider,
        *test.number_input, *test.toggle, *test.text_input, *test.button,
    )  # fmt: skip
    possible = [
        control
        for control in controls
        if not control.proto.disabled and control.key not in LEFT_ALONE
    ]
    control = dice.choice(possible)
    value = value_for(control, dice)
    control.set_value(value)
    return f"{control.key or control.label} = {value!r}"


@pytest.mark.parametrize("path", [EXPLORE, *PAGES, "pages/learn.py"])
def test_no_change_of_the_controls_ends_in_a_traceback(path):
    dice = random.Random(path)
    test = opened(path)
    test.default_timeout = 600
    changed = []
    for _ in range(CHANGES):
        changed.append(change_something(test, dice))
        test.run()
        story = "\n".join(changed)
        assert not test.exception, story
        # What the frame makes of an error that nobody foresaw.
        assert not any("wrong on our side" in error.value for error in test.error), story
