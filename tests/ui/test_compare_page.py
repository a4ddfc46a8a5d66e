"""The Compare page on a job: started, watched, and its cells as a figure, a table and a file."""

import os
import time

import pytest
from streamlit.testing.v1 import AppTest
from test_pages import app

from rsdtr import jobs
from rsdtr.compare import Cell
from rsdtr.compare_job import report
from rsdtr.ui import comparing, state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")


def shown(test: AppTest) -> AppTest:
    assert not test.exception
    assert not test.error
    return test


def compare(*methods: str, pcr: float = 3.0) -> AppTest:
    test = app()
    test.switch_page("pages/3_Compare.py").run()
    test.multiselect(key=state.COMPARED_METHODS).set_value(methods)
    test.multiselect(key=state.COMPARED_PCRS).set_value([pcr] if methods else [])
    test.number_input(key=state.COMPARED_IMAGES).set_value(50)
    return shown(test.run())


def until_ended(identity: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not jobs.find(identity).ended:
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.1)


def test_cells_fill_in_and_can_be_downloaded():
    test = compare("tt", "spatial-svd")
    shown(test.button(key="compare").click().run())
    identity = test.query_params[state.JOB]
    until_ended(identity)
    shown(test.run())
    cells = report(jobs.find(identity))
    assert [cell.method for cell in cells] == ["tt", "spatial-svd"]
    table = test.dataframe[0].value
    assert table["accuracy (%)"].tolist() == [cell.accuracy for cell in cells]
    assert len(test.get("plotly_chart")) == 1
    assert len(test.get("download_button")) == 1
    stranger = compare("tt")
    assert not stranger.get("plotly_chart")
    linked = app(**{state.JOB: identity})  # another tab, or after a reload: by the address
    linked.switch_page("pages/3_Compare.py").run()
    assert len(shown(linked).get("plotly_chart")) == 1


def test_a_failed_cell_is_a_sentence(monkeypatch):
    failed = Cell(method="ht", asked=2.0, failed="it does not reach PCR 2")
    monkeypatch.setattr(comparing, "report", lambda job: (failed,))
    test = compare("ht")
    shown(test.button(key="compare").click().run())
    until_ended(test.query_params[state.JOB])
    shown(test.run())
    assert any("it does not reach PCR 2" in text.value for text in test.caption)


def test_nothing_to_compare():
    test = compare()
    assert test.button(key="compare").disabled
    assert any("at least one method" in box.value for box in test.info)
