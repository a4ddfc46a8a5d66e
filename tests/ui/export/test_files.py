"""The Export page: the files with their proof, and one zip that verifies."""

import json

from rsdtr.exports.verify import unchanged
from rsdtr.jobs import job_queue
from rsdtr.system.zip_archive import unzipped
from rsdtr.ui.export import files
from rsdtr.ui.shared import session
from tests.support.pages import app
from tests.support.waiting import until


def test_files_are_shown_with_their_proof_and_handed_out_as_one_zip(tmp_path):
    test = app(eps="0.9")
    test.switch_page("pages/export.py").run()
    assert any("Nothing exported yet" in caption.value for caption in test.caption)
    test.session_state[session.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    job = job_queue.find(test.query_params[session.JOB])
    assert test.button(key="export").disabled
    until(lambda: job_queue.find(job.id).ended)
    test.run()
    assert not test.exception
    assert not test.error
    assert not test.button(key="export").disabled
    (table,) = [table.value for table in test.table]
    assert table["file"].tolist() == ["model.safetensors", "rsdtr_model.py"]
    assert table["size"].str.contains("dense 1.09 MB").tolist() == [True, False]
    assert table["proved"].str.startswith("same class for 100 % of 64 images; logits").all()
    folder = job_queue.find(job.id).result
    unchanged(folder)
    assert json.loads(files.manifest(folder))["proofs"].keys() == {"safetensors", "python"}
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "--eps 0.9" in report
    assert "Plotly.newPlot(" in report
    zipped = files._zipped(folder, "digits")
    assert zipped == files._zipped(folder, "digits")
    (tmp_path / "digits.zip").write_bytes(zipped)
    with unzipped(tmp_path / "digits.zip") as folder:
        assert unchanged(folder).proofs.keys() == {"safetensors", "python"}


def test_another_tab_with_its_address_has_the_files_and_a_stranger_has_not():
    test = app(eps="0.9")
    test.switch_page("pages/export.py").run()
    test.session_state[session.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    address = test.query_params[session.JOB]
    until(lambda: job_queue.find(address).ended)
    other = app(eps="0.9", job=address)
    other.switch_page("pages/export.py").run()
    assert not other.exception
    assert len(other.table) == 1
    stranger = app(eps="0.9")
    stranger.switch_page("pages/export.py").run()
    assert any("Nothing exported yet" in caption.value for caption in stranger.caption)


def test_an_export_that_fails_says_why_and_may_be_tried_again(monkeypatch):
    monkeypatch.setattr(job_queue, "command", lambda _: ["false"])
    test = app(eps="0.9")
    test.switch_page("pages/export.py").run()
    test.session_state[session.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    address = test.query_params[session.JOB]
    until(lambda: job_queue.find(address).ended)
    test.run()
    assert not test.exception
    assert [box.value for box in test.warning if "The export failed" in box.value]
    assert test.button(key="resume").label == "Try again"
