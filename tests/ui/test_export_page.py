"""The Export page: the files with their proof, and one zip that verifies."""

import json

from test_pages import app

from rsdtr.archive import unzipped
from rsdtr.ui import downloads, state
from rsdtr.verify import unchanged


def test_files_are_shown_with_their_proof_and_handed_out_as_one_zip(tmp_path):
    test = app(eps="0.9")
    test.switch_page("pages/4_Export.py").run()
    assert any("Nothing exported yet" in caption.value for caption in test.caption)
    test.session_state[state.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    assert not test.exception
    assert not test.error
    (table,) = [table.value for table in test.table]
    assert table["file"].tolist() == ["model.safetensors", "rsdtr_model.py"]
    assert table["size"].str.contains("dense 1.09 MB").tolist() == [True, False]
    assert table["proved"].str.startswith("same class for 100 % of 64 images; logits").all()
    (exported,) = test.session_state["exports"].values()
    unchanged(exported.folder)
    assert json.loads(downloads.manifest(exported))["proofs"].keys() == {"safetensors", "python"}
    report = (exported.folder / "report.html").read_text(encoding="utf-8")
    assert "--eps 0.9" in report
    assert "Plotly.newPlot(" in report
    zipped = downloads._zipped(exported.folder, "digits")
    assert zipped == downloads._zipped(exported.folder, "digits")
    (tmp_path / "digits.zip").write_bytes(zipped)
    with unzipped(tmp_path / "digits.zip") as folder:
        assert unchanged(folder).proofs.keys() == {"safetensors", "python"}
