"""The fastest rings on the pages: offered, measured by a job, stopped, taken over everywhere."""

import os

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.compressed.saved import load
from rsdtr.errors import JobError
from rsdtr.jobs import job_queue
from rsdtr.jobs.kinds.fastest_rings import fastest_job, fastest_plan
from rsdtr.jobs.kinds.network_job import START
from rsdtr.measuring import layer_times
from rsdtr.measuring.fastest_rings import fastest_rings
from rsdtr.measuring.layer_times import DeviceProfile
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ui.plan import fastest_rings as shown_rings
from rsdtr.ui.shared import session
from tests.support import job_kinds
from tests.support.pages import DIGITS, app, click, keys, metrics_of, shown
from tests.support.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]
SLEEPER, QUITTER = ["sleep", "100"], ["true"]
ASKED = {"objective": "latency", "eps": "0.6"}


@pytest.fixture(scope="module")
def digits():
    return profile(load_model(DIGITS), model_spec(DIGITS))


@pytest.fixture(scope="module")
def fewest(digits):
    """What the page shows until it knows better."""
    return plan(digits, 0.6, objective="macs")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """Jobs take times that are made up; this very process takes none."""

    def measure(_):
        raise AssertionError("a page has measured")

    monkeypatch.setattr(layer_times, "measure", measure)
    monkeypatch.setenv("MADE_UP_TIMES", "0")
    monkeypatch.setattr(job_queue, "command", job_kinds.command)


def captions(test: AppTest) -> str:
    return "\n".join(box.value for box in test.caption)


def ranks(at) -> list[object]:
    return [layer.ranks for layer in at.layers]


def test_measured_by_a_job_the_fastest_rings_are_taken_over_by_every_page(digits, fewest):
    test = app(**ASKED)
    assert not test.error
    assert metrics_of(test)["FCR"].startswith(f"{fewest.fcr:.2f}")
    assert "rings of fewest MACs: which ones are the fastest at batch 1" in captions(test)
    assert job_queue.listed() == []
    click(test, "measure_fastest")
    assert "stop_fastest" in keys(test)
    assert "measure_fastest" not in keys(test)
    (job,) = job_queue.listed()
    assert job.kind == "fastest"
    until(lambda: job_queue.find(job.id).ended)
    shown(test.run())

    chosen = fastest_plan(fewest, PUBLISHED, 1)
    expected = fastest_rings(fewest, digits)  # all that it asks for is measured
    assert ranks(chosen) == ranks(expected)
    assert [layer.form for layer in chosen.layers] == [layer.form for layer in expected.layers]
    others = sum(a != b for a, b in zip(ranks(chosen), ranks(fewest), strict=True))
    assert others > 1
    assert "Each of the 18 rings is the fastest of those measured" in captions(test)
    assert f"batch 1: {others} of them are not the ones of fewest MACs" in captions(test)
    assert {"measure_fastest", "stop_fastest"}.isdisjoint(keys(test))
    assert metrics_of(test)["FCR"].startswith(f"{chosen.fcr:.2f}")
    assert metrics_of(test)["PCR"].startswith(f"{chosen.pcr:.2f}")
    rows = test.dataframe[0].value.set_index("layer")
    assert rows["ranks R0…R3"].tolist() == [
        ", ".join(map(str, layer.ranks or ())) for layer in chosen.layers
    ]
    assert rows.loc["layer3.2.conv2", "in time"] == ["gains"]

    test.switch_page("pages/layers.py").run()
    layer = next(
        after for before, after in zip(fewest.layers, chosen.layers, strict=True)
        if before.ranks != after.ranks
    )  # fmt: skip
    shown(test.selectbox(key=session.LAYER).set_value(layer.name).run())
    assert ", ".join(map(str, layer.ranks)) in {metric.value for metric in test.metric}
    assert "★ is the one that is the fastest here" in captions(test)
    table = next(frame.value for frame in test.dataframe if "chosen" in frame.value)
    (star,) = table[table["chosen"]].to_dict("records")
    assert (star["shift"], star["r0"]) == (layer.shift, layer.r0)
    cells = table[["shift", "r0"]].value_counts()
    assert cells[(layer.shift, layer.r0)] == 1

    test.switch_page("pages/recover.py").run()
    shown(test)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_queue, "command", lambda _: SLEEPER)
        click(test, "refit")
    start = load(job_queue.find(test.query_params[session.JOB]).folder / START)
    assert start.plan.model_copy(update={"seconds": chosen.seconds}) == chosen
    forms = {name: layer.form for name, layer in start.model.named_modules() if layer_form(layer)}
    assert forms == {layer.name: layer.form for layer in chosen.layers if layer.ranks}


def layer_form(module: object) -> object:
    return getattr(module, "form", None)


def test_batch_and_objective_are_in_the_address_and_another_question_is_offered_anew(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: SLEEPER)
    test = app(**ASKED, latency_batch="16")
    assert test.button_group(key=session.OBJECTIVE).value == "latency"
    assert test.button_group(key=session.LATENCY_BATCH).value == 16
    assert "fastest at batch 16" in captions(test)
    test.switch_page("pages/export.py").run()  # which asks for no batch
    assert "fastest at batch 16" in captions(shown(test))
    assert test.query_params["latency_batch"] == "16"
    click(test, "measure_fastest")
    assert "stop_fastest" in keys(test)
    test.switch_page("pages/explore.py").run()
    assert "stop_fastest" in keys(shown(test))
    shown(test.button_group(key=session.LATENCY_BATCH).set_value(1).run())
    assert "latency_batch" not in test.query_params
    assert "fastest at batch 1 " in captions(test)
    assert "measure_fastest" in keys(test)
    shown(test.button_group(key=session.LATENCY_BATCH).set_value(16).run())
    assert "stop_fastest" in keys(test)
    shown(test.slider(key=session.EPS).set_value(0.5).run())
    assert "measure_fastest" in keys(test)
    shown(test.button_group(key=session.OBJECTIVE).set_value("macs").run())
    assert {"measure_fastest", "stop_fastest"}.isdisjoint(keys(test))


def test_stopped_it_says_so_and_goes_on(fewest, monkeypatch):
    monkeypatch.setenv("MADE_UP_TIMES", "0.2")
    test = click(app(**ASKED), "measure_fastest")
    until(lambda: fastest_job(fewest, PUBLISHED, 1).done > 0)
    shown(test.run())
    (bar,) = (e.proto for e in test.get("progress") if "Fastest rings" in e.proto.text)
    assert "measuring, rings" in bar.text
    click(test, "stop_fastest")
    until(lambda: fastest_job(fewest, PUBLISHED, 1).ended)
    shown(test.run())
    assert "Stopped; what was measured is kept" in captions(test)
    assert DeviceProfile.own().layers
    assert metrics_of(test)["FCR"].startswith(f"{fewest.fcr:.2f}")
    monkeypatch.setenv("MADE_UP_TIMES", "0")
    click(test, "measure_fastest")
    until(lambda: fastest_job(fewest, PUBLISHED, 1).ended)
    assert fastest_job(fewest, PUBLISHED, 1).state == "done"
    assert "is the fastest of those measured" in captions(shown(test.run()))


def test_failures_are_one_sentence(fewest, monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: QUITTER)
    test = app(**ASKED)
    test.button(key="measure_fastest").click().run()
    until(lambda: fastest_job(fewest, PUBLISHED, 1).ended)
    test.run()
    assert not test.exception
    (error,) = test.error
    said = error.value.replace("\\", "")
    assert said.startswith("The fastest rings were not measured: its process was killed")
    assert metrics_of(test)["FCR"].startswith(f"{fewest.fcr:.2f}")

    def fails(*_, **__):
        raise JobError("the job could not be written: make room on the disk")

    monkeypatch.setattr(shown_rings, "queue_fastest", fails)
    test.button(key="measure_fastest").click().run()
    (error,) = test.error
    said = error.value.replace("\\", "")
    assert said == "the job could not be written: make room on the disk"


def test_without_a_ring_there_is_nothing_to_measure():
    test = app(**ASKED | {"eps": "0.02"})
    assert metrics_of(test)["Rings"].startswith("0 of")
    assert "measure_fastest" not in keys(shown(test))
