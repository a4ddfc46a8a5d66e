"""The Compare page on a job: started, watched, and its cells as a figure, a table and a file."""

import os
import time

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.baselines.comparison import Cell
from rsdtr.jobs import job_queue
from rsdtr.jobs.kinds.comparison import report
from rsdtr.ui.compare import clicked_cell, comparison
from rsdtr.ui.shared import session
from tests.support.pages import app

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")


def shown(test: AppTest) -> AppTest:
    assert not test.exception
    assert not test.error
    return test


def compare(*methods: str, pcr: float = 3.0) -> AppTest:
    test = app()
    test.switch_page("pages/compare.py").run()
    test.multiselect(key=session.COMPARED_METHODS).set_value(methods)
    test.multiselect(key=session.COMPARED_PCRS).set_value([pcr] if methods else [])
    test.number_input(key=session.COMPARED_IMAGES).set_value(50)
    return shown(test.run())


def until_ended(identity: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not job_queue.find(identity).ended:
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.1)


def test_cells_fill_in_and_can_be_downloaded():
    test = compare("rsdtr-tight", "tt")
    shown(test.button(key="compare").click().run())
    identity = test.query_params[session.JOB]
    until_ended(identity)
    shown(test.run())
    cells = report(job_queue.find(identity))
    assert [cell.method for cell in cells] == ["rsdtr-tight", "tt"]
    table = test.dataframe[0].value
    assert table["accuracy (%)"].tolist() == [cell.accuracy for cell in cells]
    assert len(test.get("plotly_chart")) == 4  # the comparison, two side by side, ρ twice
    assert len(test.get("download_button")) == 2  # the cells, two side by side
    pair = test.dataframe[1].value
    assert pair["ranks A"].iloc[1] == " ".join(map(str, cells[0].cores[0].ranks))
    assert pair["storage B"].iloc[1] == cells[1].cores[0].storage
    stranger = compare("tt")
    assert not stranger.get("download_button")  # no table is theirs
    linked = app(**{session.JOB: identity})  # another tab, or after a reload: by the address
    linked.switch_page("pages/compare.py").run()
    assert len(shown(linked).get("plotly_chart")) == 4

    click(test, "tt")
    assert any("cannot be opened there" in text.value for text in test.markdown)
    click(test, "rsdtr-tight")
    shown(test.button(key="open").click().run())
    assert test.title[0].value == "Explore"
    assert test.session_state[session.RULE] == "tight"
    asked = test.session_state[session.EPS]
    assert asked - 0.01 < cells[0].eps <= asked
    assert test.query_params[session.RULE] == "tight"


def click(test: AppTest, method: str) -> None:
    points = [{"customdata": [method, 3.0]}]
    test.session_state["comparison"] = {"selection": {"points": points}}
    shown(test.run())


def test_what_explore_asks_for():
    target = Cell(method="rsdtr-target", asked=3.5)
    assert clicked_cell.question(target)[session.PCR] == 3.5
    assert clicked_cell.question(target)[session.ASK] == "target"
    paper = Cell(method="rsdtr-paper", asked=3.5, eps=0.694)
    assert clicked_cell.question(paper)[session.EPS] == 0.70
    assert clicked_cell.question(paper.model_copy(update={"eps": 0.69}))[session.EPS] == 0.69
    for name in ("tt", "int8", "rsdtr-paper+int8"):
        assert clicked_cell.question(Cell(method=name, asked=2.0, eps=0.5)) is None


def test_which_point_was_clicked():
    cells = (Cell(method="tt", asked=2.0), Cell(method="tt", asked=4.0))
    assert clicked_cell.picked({"points": [{"customdata": ["tt", 4.0]}]}, cells) is cells[1]
    assert clicked_cell.picked({"points": [{"customdata": ["ht", 4.0]}]}, cells) is None
    assert clicked_cell.picked({"points": [{"x": 1}]}, cells) is None


def test_a_failed_cell_is_a_sentence(monkeypatch):
    failed = Cell(method="ht", asked=2.0, failed="it does not reach PCR 2")
    monkeypatch.setattr(comparison, "report", lambda job: (failed,))
    test = compare("ht")
    shown(test.button(key="compare").click().run())
    until_ended(test.query_params[session.JOB])
    shown(test.run())
    assert any("it does not reach PCR 2" in text.value for text in test.caption)


def test_nothing_to_compare():
    test = compare()
    assert test.button(key="compare").disabled
    assert any("at least one method" in box.value for box in test.info)
