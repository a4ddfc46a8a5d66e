"""Accuracy over compression on Explore: known at once, measured in the background, clicked."""

import pytest

from rsdtr.baselines.comparison import Cell
from rsdtr.data.datasets import data_identity
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.kinds.tradeoff_curve import KIND, queue_curve
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.recovery.curves_on_disk import load_curve, save_curve
from rsdtr.search.candidate import COARSE
from rsdtr.ui.explore import curve
from rsdtr.ui.shared import session
from tests.support.curves import digits_key as key
from tests.support.curves import made_up_curve, point
from tests.support.pages import DIGITS, app, keys, metrics_of, shown


def summary(test) -> str:
    return next(text.value for text in test.main.markdown if "the dense network" in text.value)


@pytest.fixture
def queued(monkeypatch):
    """What the page has asked to be measured."""
    asked = []
    monkeypatch.setattr(curve, "queue_curve", lambda *what: asked.append(what))
    return asked


def test_the_bundled_network_has_its_accuracy_at_the_first_start(queued):
    test = shown(app(eps="0.6"))
    told = load_curve(key()).at(Choices(eps=0.6)).accuracy.recalibrated
    assert metrics_of(test)["Accuracy"] == f"{told.percent:.1f} %"
    assert "measure" not in keys(test)
    held = load_curve(key()).smallest(1.0)
    assert f"PCR {held.pcr:.1f}" in summary(test)
    assert queued == []
    test.slider(key=session.EPS).set_value(0.95).run()
    worst = load_curve(key()).at(Choices(eps=0.95)).accuracy.recalibrated
    assert metrics_of(test)["Accuracy"] == f"{worst.percent:.1f} %"


def test_between_two_measured_points_the_card_says_between_which(queued):
    shorter = made_up_curve(point(0.55, 5.0, 98.0), point(0.6, 6.0, 96.5))
    wanted = key(objective="macs")
    save_curve(shorter.model_copy(update={"key": wanted}))
    test = shown(app(eps="0.57", objective="macs"))
    assert metrics_of(test)["Accuracy"] == "96.5 – 98.0 %"
    card = next(m for m in test.metric if m.label == "Accuracy")
    assert card.delta == "measured at εₚ 0.55 and 0.60"
    assert "measure" in keys(test)  # the plan itself can be


def test_what_is_missing_is_queued_once_and_can_be_asked_for(queued):
    test = shown(app(objective="macs"))
    test.run()
    ((model, weights, data, asked, recover),) = queued
    assert (model, weights.published, data, recover) == (DIGITS, True, None, "recalibrate")
    assert asked == key(objective="macs")
    assert metrics_of(test)["Accuracy"] == "–"
    test.button(key="measure_curve").click().run()
    assert len(queued) == 2


def test_a_folder_that_is_no_place_for_jobs_leaves_the_page_as_it_is(monkeypatch):
    def refused(*_):
        raise JobError("no place")

    monkeypatch.setattr(curve, "queue_curve", refused)
    assert metrics_of(shown(app(objective="macs")))["Accuracy"] == "–"


def test_a_job_that_runs_is_shown_beside_the_figure_and_can_be_stopped(own_jobs, monkeypatch):
    monkeypatch.setattr(job_queue, "tend", lambda: None)  # no worker
    wanted = key(objective="macs")
    spec = model_spec(DIGITS)
    network = shown(app(objective="macs"))
    assert "stop_curve" not in keys(network)
    job = queue_curve(spec.name, PUBLISHED, None, wanted, "recalibrate")
    assert (job.kind, job.nice, job.subject) == (KIND, True, "")
    test = shown(app(objective="macs"))
    assert "measure_curve" not in keys(test)
    test.button(key="stop_curve").click().run()
    assert job_queue.find(job.id).state == "cancelled"
    assert "measure_curve" in keys(test)


def test_where_there_is_no_accuracy_the_page_says_why(queued):
    test = app(weights="none")
    assert any("Synthetic weights" in info.value for info in test.info)
    assert queued == []


def test_without_images_of_its_own_the_page_says_what_to_name(queued):
    test = app()
    test.text_input(key=session.DATA).set_value("/no/such/folder").run()
    assert any("name a folder of class folders" in info.value for info in test.info)
    assert queued == []


def test_a_point_that_is_clicked_is_asked_for(queued):
    test = app(eps="0.6")
    test.session_state["curve"] = {
        "selection": {"points": [{"customdata": ["εₚ 0.30", 0.3, 2.0, 97.0, 99.0]}]}
    }
    test.run()
    test.button(key="ask_curve").click().run()
    assert test.slider(key=session.EPS).value == 0.3


def test_the_axis_can_be_switched(queued):
    test = app()
    for axis in ("fcr", "mb", "time", "pcr"):
        test.segmented_control(key=session.CURVE_AXIS).set_value(axis).run()
        shown(test)


def test_every_coarse_position_of_the_slider_is_measured():
    found = load_curve(key())
    assert all(found.at(Choices(eps=eps)).accuracy.refit for eps in COARSE)


def test_without_labels_the_curve_is_of_fidelity_and_called_so(queued):
    spec = model_spec(DIGITS)
    data = {"data": data_identity("photos", spec), "measure": "fidelity"}
    wanted = key().model_copy(update=data)
    shorter = made_up_curve(point(0.5, 5.0, 98.0), point(0.6, 6.0, 96.5), dense=100.0)
    save_curve(shorter.model_copy(update={"key": wanted, "data": "photos"}))
    test = app(eps="0.6")
    test.text_input(key=session.DATA).set_value("photos").run()
    assert metrics_of(test)["Fidelity"] == "96.5 %"
    assert "Accuracy" not in metrics_of(test)
    assert any("without labels. Fidelity: percent" in caption.value for caption in test.caption)
    assert load_curve(key()) is not None  # that of accuracy is another one


def test_what_compare_has_found_on_the_same_images_is_on_the_same_axes():
    cell = Cell(
        method="tt", asked=4.0, pcr=4.1, fcr=3.0, bytes=500_000, accuracy=95.0,
        interval=(92.0, 97.0), n=360,
    )  # fmt: skip
    failed = Cell(method="cp", asked=4.0, failed="no such rank")
    (place,) = curve._compared([cell, failed], "mb")
    assert (place.x, place.accuracy.percent) == (0.5, 95.0)
    assert place.name.endswith("Compare")
    assert curve._compared([cell], "time") == []  # of another batch
