"""A control of Learn that plays: its values in order, its end, and whoever stops it."""

import pytest

from rsdtr.search.candidate import COARSE
from rsdtr.ui.learn import play
from rsdtr.ui.shared import session
from tests.support.pages import keys, opened, shown

CONTROLS = {
    1: session.LAYER,
    2: session.EPS,
    3: session.LESSON_R0,
    4: session.LESSON_SHIFT,
    5: session.LESSON_COMPONENTS,
    6: session.LESSON_STAGE,
}


def test_at_most_so_many_values_with_the_first_and_the_last():
    assert play.spread((1, 2, 3)) == (1, 2, 3)
    found = play.spread(range(100))
    assert (len(found), found[0], found[-1]) == (play.MOST_STEPS, 0, 99)
    assert list(found) == sorted(set(found))


@pytest.mark.parametrize("number", CONTROLS)
def test_the_one_control_of_each_step_can_be_played(number):
    test = shown(opened("pages/learn.py", lesson=str(number)))
    key = CONTROLS[number]
    test.button(key=f"play-{key}").click().run()
    first = test.session_state[key]
    assert test.button(key=f"play-{key}").label == "Stop"
    shown(test.run())
    assert test.session_state[key] != first


def test_it_ends_with_the_last_value_and_the_figure_follows():
    test = opened("pages/learn.py", lesson="2")
    test.button(key=f"play-{session.EPS}").click().run()
    values = play.spread(COARSE)
    seen = [test.session_state[session.EPS]]
    for _ in values[1:]:
        shown(test.run())
        seen.append(test.session_state[session.EPS])
    assert seen == list(values)
    shown(test.run())
    assert test.session_state[session.EPS] == values[-1]
    assert test.button(key=f"play-{session.EPS}").label == "Play"


def test_it_can_be_stopped_and_another_step_does_not_go_on_with_it():
    test = opened("pages/learn.py", lesson="2")
    test.button(key=f"play-{session.EPS}").click().run()
    test.button(key=f"play-{session.EPS}").click().run()
    stopped = test.session_state[session.EPS]
    shown(test.run())
    assert test.session_state[session.EPS] == stopped
    assert f"play-{session.LESSON_R0}" not in keys(test)
