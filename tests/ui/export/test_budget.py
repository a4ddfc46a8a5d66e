"""Explore's budget: one number and one button queue the search; its end is a sentence and files."""

import os

import pytest

from rsdtr.jobs import job_queue
from rsdtr.jobs.job import read_spec
from rsdtr.jobs.kinds import autopilot as job_kind
from rsdtr.jobs.kinds.autopilot import TRIALS, TriedNetwork
from rsdtr.ui.shared import session
from tests.support.pages import app, click, keys

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]


@pytest.fixture(autouse=True)
def asleep(monkeypatch):
    monkeypatch.setattr(job_queue, "tend", lambda: None)


def test_one_number_and_one_button_queue_the_search_and_its_trials_are_shown():
    test = app()
    test.number_input(key=session.BUDGET_POINTS).set_value(2.0).run()
    click(test, "find_smallest")
    (job,) = job_queue.listed()
    content = read_spec(job.folder).content
    budget = {key: content["budget"][key] for key in ("max_drop", "purpose", "epochs", "int8")}
    assert budget == {"max_drop": 2.0, "purpose": "size", "epochs": 0, "int8": False}
    assert job.title == "digits_resnet20, the smallest within 2 points"
    assert "make_smaller" not in keys(test)  # its progress stands there instead
    assert test.button(key="finish").disabled
    held = TriedNetwork(pcr=8.1, fcr=6.2, stage="refit", points=0.5, held=True)
    (job.folder / TRIALS).write_bytes(job_kind._tried.dump_json((held,)))
    test.run()
    assert not test.button(key="finish").disabled
    assert test.dataframe[0].value.iloc[0].to_dict() == {
        "PCR": "8.10", "FCR": "6.20", "brought through": "refit", "points lost": "0.50",
        "holds": "yes",
    }  # fmt: skip


def test_where_no_answer_counts_nothing_is_offered():
    assert "find_smallest" not in keys(app(weights="none"))
