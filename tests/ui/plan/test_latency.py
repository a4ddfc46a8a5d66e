"""Latency on the pages: the empty state, the button, the process it starts, what it shows."""

import json
import os
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.job_queue import find
from rsdtr.jobs.job_table import transact
from rsdtr.jobs.kinds.layer_times import KIND
from rsdtr.measuring.latency import network_cases, network_latency
from rsdtr.measuring.layer_times import DeviceProfile
from rsdtr.measuring.stopwatch import machine
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.system import processes
from rsdtr.ui.plan import latency
from rsdtr.ui.shared import session
from tests.support.made_up import device_profile
from tests.support.pages import DIGITS, app, metrics_of


@pytest.fixture(scope="module")
def digits():
    return profile(load_model(DIGITS), model_spec(DIGITS))


@pytest.fixture
def started(monkeypatch):
    """What the button has asked a job to measure."""
    requests = []
    monkeypatch.setattr(
        latency,
        "queue_layer_times",
        lambda label, cases, again: requests.append((label, cases, again)),
    )
    return requests


def cases_of(digits, eps=0.6, batch=1):
    return network_cases(plan(digits, eps), digits, batch=batch, threads=2)


def keep(cases, **best):
    device_profile(cases, machine(), **best).save()


def job(state="running", **changes):
    """As if a job measured, or had."""
    worker = processes.start(["sleep", "100"], Path(os.devnull), {}) if state == "running" else None
    fields = {"place": 1, "done": 3, "total": 12, "exclusive": True, "worker": worker}
    found = Job("0" * 16, KIND, "a model", "", state, 0.0, **fields | changes)
    transact(lambda table: table.put(found))
    return found


def layers_page(test: AppTest, layer: str) -> AppTest:
    test.switch_page("pages/layers.py").run()
    test.selectbox(key=session.LAYER).set_value(layer).run()
    assert not test.exception
    assert not test.error
    return test


def charts(test: AppTest) -> list[str]:
    return [element.proto.id.rsplit("-", 1)[-1] for element in test.get("plotly_chart")]


def drawn(test: AppTest, key: str) -> dict:
    """A figure as the page sends it."""
    (spec,) = (e.proto.spec for e in test.get("plotly_chart") if e.proto.id.endswith(f"-{key}"))
    return json.loads(spec)


def said(test: AppTest) -> str:
    return "\n".join(box.value for kind in (test.info, test.caption, test.markdown) for box in kind)


def test_nothing_is_measured_at_first():
    test = app()
    assert not test.exception
    assert metrics_of(test)["Latency"] == "–"
    assert "Not measured yet for this plan at batch 1" in said(test)
    assert test.button(key="measure_latency").label == "Measure on this machine"
    assert "latency" not in charts(test)
    assert set(test.dataframe[0].value["in time"].str[0]) == {"not measured", "kept dense"}


def test_the_button_asks_for_this_plan_first_and_then_for_the_curve(started, digits):
    test = app(eps="0.45")
    test.button(key="measure_latency").click().run()
    assert not test.exception
    ((label, asked, again),) = started
    assert (label, again) == (f"{DIGITS}, batch 1", False)
    own = list(dict.fromkeys(cases_of(digits, 0.45).values()))
    assert list(asked[: len(own)]) == own
    curve = [one for eps in latency.CURVE for one in cases_of(digits, eps).values()]
    assert set(asked) == {*own, *curve}


def test_another_batch_and_no_curve(started, digits):
    test = app()
    test.button_group(key=session.LATENCY_BATCH).set_value(16).run()
    test.toggle(key=session.LATENCY_CURVE).set_value(False).run()
    assert "at batch 16" in said(test)
    test.button(key="measure_latency").click().run()
    ((_, asked, _),) = started
    assert set(asked) == set(cases_of(digits, batch=16).values())


def test_what_is_known_is_not_measured_once_more_unless_asked(started, digits):
    cases = list(cases_of(digits).values())
    keep(cases[1:])
    test = app()
    test.toggle(key=session.LATENCY_CURVE).set_value(False).run()
    assert f"1 of {len(cases)} layers of this plan are not measured yet" in said(test)
    test.button(key="measure_latency").click().run()
    keep(cases)
    test.run()
    assert test.button(key="measure_latency").label == "Measure again"
    test.button(key="measure_latency").click().run()
    (_, first, again), (_, second, once_more) = started
    assert (list(first), again) == (cases[:1], False)
    assert (set(second), once_more) == (set(cases), True)


def test_measured_times_are_shown(digits):
    keep(cases_of(digits).values(), O_IHW=4.0)
    test = app()
    assert not test.exception
    rings = sum(layer.in_paper_policy for layer in digits.layers)
    ratio = (10 + 4 * rings) / (10 + 10 * rings)
    expected = network_latency(plan(digits, 0.6), digits, DeviceProfile.own())
    assert expected.ratio == pytest.approx(ratio)
    assert metrics_of(test)["Latency"] == f"{ratio:.2f} ×"
    assert metrics_of(test)["FCR as it runs"] == f"{expected.fcr_run:.2f} ×"
    assert metrics_of(test)["FCR of the four sublayers"] == metrics_of(test)["FCR"]
    assert metrics_of(test)["Rings that gain time"] == f"{rings} of {rings}"
    assert "latency" in charts(test)
    rows = test.dataframe[0].value.set_index("layer")
    assert rows.loc["layer1.0.conv1", "in time"] == ["gains"]
    assert rows.loc["layer1.0.conv1", "ring / dense (×)"] == 0.4
    # Another batch is another measurement.
    test.button_group(key=session.LATENCY_BATCH).set_value(16).run()
    assert metrics_of(test)["Latency"] == "–"


def test_the_curve_has_the_points_that_were_measured(digits):
    keep([*cases_of(digits, 0.3).values(), *cases_of(digits, 0.7).values()], O_IHW=4.0)
    test = app(eps="0.6")
    assert metrics_of(test)["Latency"] == "–"
    figure, ratios = (drawn(test, key) for key in ("latency", "ratios"))
    curve = next(trace for trace in figure["data"] if trace["name"] == "batch 1")
    assert curve["x"] == [plan(digits, eps).pcr for eps in (0.3, 0.7)]
    assert "now" not in {trace["name"] for trace in figure["data"]}
    # The other figure has the same points the other way up: original / compressed.
    times = next(trace for trace in ratios["data"] if trace["name"] == "time (measured)")
    assert times["x"] == [0.3, 0.7]
    assert times["y"] == pytest.approx([1 / ratio for ratio in curve["y"]])
    assert max(curve["y"]) < 1


def test_progress_is_shown_and_the_page_goes_on():
    measuring = job(seconds_left=42.0)
    test = app()
    assert not test.exception
    (bar,) = (e for e in test.get("progress") if "Measuring" in e.proto.text)
    assert "a model: 3 of 12 layers, about 45 s left" in bar.proto.text.replace("\\", "")
    assert "measure_latency" not in {button.key for button in test.button}
    test.button(key="stop_latency").click().run()
    assert find(measuring.id).cancel_asked is not None
    assert test.button(key="stop_latency").disabled


def test_it_waits_for_its_turn(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["sleep", "100"])
    busy = job_queue.submit("count", "count", {})
    assert busy.state == "running"
    job("queued", place=9, done=0, total=0)
    test = app()
    (bar,) = (e for e in test.get("progress") if "before it" in e.proto.text)
    assert bar.proto.text == "Waiting\\: 0 jobs before it in the queue"
    assert not test.button(key="stop_latency").disabled
    busy.worker.kill()


def test_stopped_half_way_says_so():
    job("cancelled")
    assert "a model: stopped at 3 of 12 layers" in said(app()).replace("\\", "")


def test_failures_are_one_sentence(monkeypatch):
    job("failed", message="the disk is full: make room")
    test = app()
    assert [error.value.replace("\\", "") for error in test.error] == [
        "the disk is full: make room"
    ]

    def fails(*_, **__):
        raise JobError("the job could not be written")

    monkeypatch.setattr(latency, "queue_layer_times", fails)
    test.button(key="measure_latency").click().run()
    assert [error.value for error in test.error] == ["the job could not be written"]


def test_a_layer_shows_its_forms_and_a_badge(digits):
    test = layers_page(app(), "layer3.0.conv2")
    assert "not measured" in said(test)
    assert "forms" not in charts(test)
    keep(cases_of(digits).values(), dense=5.0)
    test.run()
    assert "runs dense: the ring is slower here (2.00 ×)" in said(test).replace("\\", "")
    assert "forms" in charts(test)
    test.selectbox(key=session.LAYER).set_value("conv1").run()
    assert not test.exception
    assert "kept dense: outside the layer policy 'paper'" in said(test).replace("\\", "")
