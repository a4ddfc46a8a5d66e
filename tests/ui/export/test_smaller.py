"""One click on Explore: a job that recovers, measures, exports and proves, and hands out files."""

import os
from pathlib import Path

import pytest

from rsdtr.exports.export import Artefact
from rsdtr.exports.verify import unchanged
from rsdtr.jobs import job_queue
from rsdtr.jobs.job import read_spec
from rsdtr.jobs.kinds.export import ExportedFiles
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan
from rsdtr.recovery.curves_on_disk import load_curve
from rsdtr.ui.export import smaller
from rsdtr.ui.shared import session
from tests.support.curves import digits_key
from tests.support.pages import app, click, keys, shown
from tests.support.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")]


def told(test) -> str:
    return next(m.value for m in test.markdown if "times fewer parameters" in m.value)


def test_one_click_ends_with_the_download_the_proof_and_the_accuracy_before_and_after():
    test = shown(app(eps="0.9"))
    click(test, "make_smaller")
    (job,) = job_queue.listed()
    assert read_spec(job.folder).content["recover"] == "recalibrate"
    assert "recalibrated and exported as safetensors, onnx" in job.title
    assert "make_smaller" not in keys(test)  # its progress stands there instead
    assert "cancel" in keys(test)
    until(lambda: job_queue.find(job.id).ended)
    shown(test.run())
    metrics = unchanged(job.result).metrics
    curve = load_curve(digits_key())
    point = next(p for p in curve.points if p.eps == 0.9)
    assert metrics["dense_accuracy"] == curve.dense.percent
    assert metrics["accuracy"] == pytest.approx(point.accuracy.recalibrated.percent, abs=0.6)
    assert f"{curve.dense.percent:.1f} % before, {metrics['accuracy']:.1f} % recalibrated" in told(
        test
    )
    proofs = [caption.value.replace("\\", "") for caption in test.caption]
    assert any("model.onnx: same class for 100 %" in proof for proof in proofs)
    assert "make_smaller" in keys(test)
    test.switch_page("pages/export.py").run()  # the same files, with all that is said of them
    assert len(test.table) == 1
    assert not test.warning


def test_a_recovery_that_makes_no_sense_is_not_offered():
    test = app(weights="none")
    assert test.selectbox(key=session.SMALLER_RECOVERY).options == [smaller.NAMES["none"]]
    test = app()
    assert test.selectbox(key=session.SMALLER_RECOVERY).options == list(smaller.NAMES.values())


def test_a_plan_without_a_ring_has_nothing_to_make_smaller():
    assert app(eps="0.02").button(key="make_smaller").disabled


def test_images_that_are_not_there_are_one_sentence_and_nothing_is_queued():
    test = app(eps="0.9")
    test.text_input(key=session.DATA).set_value("/no/such/folder").run()
    test.button(key="make_smaller").click().run()
    assert not test.exception
    assert any("/no/such/folder" in error.value.replace("\\", "") for error in test.error)
    assert job_queue.listed() == []


@pytest.mark.parametrize(
    ("reached", "said"),
    [(97.0, "2.0 points lost"), (99.0, "nothing lost"), (99.5, "nothing lost")],
)
def test_the_sentence_says_what_it_cost(reached, said):
    dense, after = (Accuracy(p, (p - 1, p + 0.5), 100) for p in (99.0, reached))
    files = (Artefact("safetensors", Path("model"), 1000, None, 0.0, 0.0, 1.0, 64, 0.1),)
    made = ExportedFiles("refit", None, Path(), files, (("dense", dense), ("refit", after)))
    assert said in smaller.sentence(made, _plan())


def _plan() -> CompressionPlan:
    spec = model_spec("digits_resnet20")
    return Choices(eps=0.6).decide(profile(load_model(spec.name), spec))
