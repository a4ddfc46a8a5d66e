"""The Recover page on jobs: started, watched, cancelled, resumed, and found again."""

import os
import signal
from functools import partial

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Block, Button

from rsdtr.compressed.saved import load
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import read_spec
from rsdtr.jobs.kinds.distillation import distill_report, queue_distillation
from rsdtr.jobs.kinds.finetune import curve
from rsdtr.jobs.kinds.network_job import START
from rsdtr.jobs.kinds.refit import refit_model, report
from rsdtr.models.zoo import weights_sha256
from rsdtr.recovery.options import DistillOptions
from rsdtr.ui.recover import distillation
from rsdtr.ui.shared import session
from tests.support.pages import app, click, keys, shown, start
from tests.support.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]
SLEEPER = ["sleep", "100"]


def recover(**query: str) -> AppTest:
    test = app(**{"eps": "0.9"} | query)
    test.switch_page("pages/recover.py").run()
    return shown(test)


def test_recalibrate_then_fine_tune_then_export_holds_the_recovered_model():
    test = recover()
    click(test, "recalibrate")
    job = start(test, 1, batch=64)
    assert "cancel" in keys(test)
    assert test.button(key="finetune").disabled
    until(lambda: job_queue.find(job.id).ended)
    shown(test.run())
    (recovery,) = test.session_state["recoveries"].values()
    assert recovery.label == "fine-tuned, 1 epoch"
    assert len(curve(job_queue.find(job.id)).losses) == 18  # 1,149 training images in batches of 64
    other = recover(job=job.id)  # another tab, or after a reload
    assert [r.label for r in other.session_state["recoveries"].values()] == ["fine-tuned, 1 epoch"]
    assert other.query_params[session.JOB] == job.id
    test.switch_page("pages/export.py").run()
    assert any("fine-tuned, 1 epoch" in box.value for box in test.success)
    test.switch_page("pages/recover.py").run()
    click(test, "discard")
    assert test.session_state["recoveries"] == {}
    assert any("Nothing recovered yet" in box.value for box in test.info)
    assert session.JOB not in test.query_params


def test_cancelled_resumed_killed_and_compared():
    test = recover()
    first = start(test, 100)
    until(lambda: len(curve(first).epochs) >= 1)
    shown(test.run())
    click(test, "cancel")
    until(lambda: job_queue.find(first.id).ended)
    shown(test.run())
    assert any("was cancelled" in box.value for box in test.warning)
    (recovery,) = test.session_state["recoveries"].values()
    done = len(curve(first).epochs)
    assert recovery.label == f"fine-tuned, {done} epoch{'s' if done > 1 else ''}"
    click(test, "resume")
    assert "cancel" in keys(test)
    until(lambda: job_queue.find(first.id).done > 0)
    os.kill(job_queue.find(first.id).worker.pid, signal.SIGKILL)
    until(lambda: job_queue.find(first.id).ended)
    shown(test.run())
    assert any("its process was killed" in box.value for box in test.warning)
    second = start(test, 1)  # it starts from the recovered model
    assert second.id != first.id
    until(lambda: job_queue.find(second.id).ended)
    shown(test.run())
    table = next(frame.value for frame in test.dataframe if "job" in frame.value)
    assert table["job"].tolist() == [first.id, second.id]
    assert table["state"].tolist() == ["failed", "done"]
    test.selectbox(key="other_run").set_value(first.id).run()
    click(test, "take_up")
    assert test.query_params[session.JOB] == first.id


def test_a_job_that_waits_says_how_many_are_before_it(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: SLEEPER)
    job_queue.submit("count", "another", {})
    test = recover()
    job = start(test, 1)
    # Nobody sees it without its link, and the same choices are a job of one's own.
    stranger = recover()
    assert "cancel" not in keys(stranger)
    assert session.JOB not in stranger.query_params
    assert start(stranger, 1).id != job.id
    assert "cancel" not in keys(recover(job=job.id[:-1]))
    linked = recover(job=job.id)
    assert "cancel" in keys(linked)
    del linked.query_params[session.JOB]
    assert "cancel" in keys(shown(linked.run()))
    click(test, "cancel")
    shown(test.run())
    assert any("cancelled before it began" in box.value for box in test.warning)


def test_the_time_is_estimated_when_asked():
    test = recover()
    click(test, "estimate")
    assert any("for 3 epochs" in box.value and "GB of memory" in box.value for box in test.info)
    assert job_queue.listed() == []


def test_every_choice_reaches_the_job(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: SLEEPER)
    test = recover()
    test.selectbox(key=session.OPTIMIZER).set_value("adamw")
    test.slider(key=session.DISTILL).set_value(0.5)
    test.number_input(key=session.EMA).set_value(0.99)
    test.number_input(key=session.SMOOTHING).set_value(0.1)
    test.number_input(key=session.PATIENCE).set_value(4)
    test.toggle(key=session.FREEZE_BN).set_value(True)
    test.toggle(key=session.MIXED).set_value(True)
    test.toggle(key=session.FREEZE_DENSE).set_value(True).run()
    test.number_input(key=session.TEMPERATURE).set_value(2.0).run()
    job = start(test, 7, batch=32)

    asked = read_spec(job.folder).content["options"]
    expected = {
        "epochs": 7, "batch_size": 32, "optimizer": "adamw", "distill": 0.5, "ema": 0.99,
        "label_smoothing": 0.1, "patience": 4, "freeze_bn": True, "freeze_dense": True,
        "temperature": 2.0, "augment": "crop", "precision": "bfloat16",
    }  # fmt: skip
    assert {name: asked[name] for name in expected} == expected


def buttons_in(block: Block) -> set[str]:
    return {node.key for node in block if isinstance(node, Button) and node.key}


def test_a_refit_is_watched_taken_found_again_and_exported():
    test = recover()
    assert not any("judging by the last one" in box.value for box in test.caption)
    test.number_input(key=session.REFIT_IMAGES).set_value(60).run()
    click(test, "refit")
    job = job_queue.find(test.query_params[session.JOB])
    assert job.kind == "refit"
    assert test.button(key="cancel").label == "Cancel"
    # The progress stands beside the button that was clicked, not beneath the other ways.
    blocks = [buttons_in(block) for block in test.main if isinstance(block, Block)]
    together = min((keys for keys in blocks if {"refit", "cancel"} <= keys), key=len)
    assert together.isdisjoint({"recalibrate", "finetune"})
    assert all(test.button(key=key).disabled for key in ("recalibrate", "refit", "finetune"))
    until(lambda: job_queue.find(job.id).ended)
    shown(test.run())
    (recovery,) = test.session_state["recoveries"].values()
    assert recovery.label == "refit"
    assert recovery.weights_sha256 == weights_sha256(refit_model(job_queue.find(job.id)))
    steps = next(frame.value for frame in test.dataframe if "judged by" in frame.value)
    assert steps["step"].tolist() == [step.name for step in report(job_queue.find(job.id)).steps]
    assert any("steps were kept" in box.value for box in test.caption)
    assert any("judging by the last one" in box.value for box in test.caption)

    other = recover(job=job.id)  # another tab, or after a reload
    assert other.query_params[session.JOB] == job.id
    assert [r.label for r in other.session_state["recoveries"].values()] == ["refit"]
    click(other, "recalibrate")
    click(other, "recalibrate")
    assert [r.label for r in other.session_state["recoveries"].values()] == ["refit, recalibrated"]

    tuning = start(test, 1)  # it starts from the refit model
    begun = load(tuning.folder / START).model
    assert weights_sha256(begun) == recovery.weights_sha256
    job_queue.cancel(tuning.id)
    until(lambda: job_queue.find(tuning.id).ended)
    test.switch_page("pages/export.py").run()
    assert any("refit" in box.value for box in test.success)


def test_a_distillation_is_watched_taken_and_told(monkeypatch):
    quick = partial(queue_distillation, options=DistillOptions(steps=6, batch_size=32))
    monkeypatch.setattr(distillation, "queue_distillation", quick)
    test = recover()
    test.number_input(key=session.DISTILL_IMAGES).set_value(60).run()
    click(test, "distil")
    job = job_queue.find(test.query_params[session.JOB])
    assert job.kind == "distill"
    assert all(test.button(key=key).disabled for key in ("refit", "distil", "finetune"))
    until(lambda: job_queue.find(job.id).ended)
    shown(test.run())
    (recovery,) = test.session_state["recoveries"].values()
    judged = distill_report(job_queue.find(job.id)).judged
    assert recovery.label == "distilled without labels"
    assert judged.kept
    assert any("It is kept." in box.value for box in test.caption)
    assert any("judging by the last one" in box.value for box in test.caption)


def test_a_refit_that_was_cancelled_says_so_and_goes_on(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: SLEEPER)
    job_queue.submit("count", "another", {})
    test = recover()
    click(test, "refit")
    click(test, "cancel")
    shown(test.run())
    (warning,) = [box.value for box in test.warning]
    assert warning.startswith("The refit was cancelled")
    assert "cancelled before it began" in warning
    assert any("Nothing recovered yet" in box.value for box in test.info)
    click(test, "resume")
    assert "cancel" in keys(test)
