"""The Export page: the files with their proof, and one zip that verifies."""

import json

from test_pages import app
from test_recover_page import until

from rsdtr import jobs
from rsdtr.archive import unzipped
from rsdtr.ui import downloads, state
from rsdtr.verify import unchanged


def test_files_are_shown_with_their_proof_and_handed_out_as_one_zip(tmp_path):
    test = app(eps="0.9")
    test.switch_page("pages/export.py").run()
    assert any("Nothing exported yet" in caption.value for caption in test.caption)
    test.session_state[state.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    job = jobs.find(test.query_params[state.JOB])
    assert test.button(key="export").disabled
    until(lambda: jobs.find(job.id).ended)
    test.run()
    assert not test.exception
    assert not test.error
    assert not test.button(key="export").disabled
    (table,) = [table.value for table in test.table]
    assert table["file"].tolist() == ["model.safetensors", "rsdtr_model.py"]
    assert table["size"].str.contains("dense 1.09 MB").tolist() == [True, False]
    assert table["proved"].str.startswith("same class for 100 % of 64 images; logits").all()
    folder = jobs.find(job.id).result
    unchanged(folder)
    assert json.loads(downloads.manifest(folder))["proofs"].keys() == {"safetensors", "python"}
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "--eps 0.9" in report
    assert "Plotly.newPlot(" in report
    zipped = downloads._zipped(folder, "digits")
    assert zipped == downloads._zipped(folder, "digits")
    (tmp_path / "digits.zip").write_bytes(zipped)
    with unzipped(tmp_path / "digits.zip") as folder:
        assert unchanged(folder).proofs.keys() == {"safetensors", "python"}


def test_another_tab_with_its_address_has_the_files_and_a_stranger_has_not():
    test = app(eps="0.9")
    test.switch_page("pages/export.py").run()
    test.session_state[state.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    address = test.query_params[state.JOB]
    until(lambda: jobs.find(address).ended)
    other = app(eps="0.9", job=address)
    other.switch_page("pages/export.py").run()
    assert not other.exception
    assert len(other.table) == 1
    stranger = app(eps="0.9")
    stranger.switch_page("pages/export.py").run()
    assert any("Nothing exported yet" in caption.value for caption in stranger.caption)


def test_an_export_that_fails_says_why_and_may_be_tried_again(monkeypatch):
    monkeypatch.setattr(jobs, "command", lambda _: ["false"])
    test = app(eps="0.9")
    test.switch_page("pages/export.py").run()
    test.session_state[state.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    address = test.query_params[state.JOB]
    until(lambda: jobs.find(address).ended)
    test.run()
    assert not test.exception
    assert [box.value for box in test.warning if "The export failed" in box.value]
    assert test.button(key="resume").label == "Try again"
