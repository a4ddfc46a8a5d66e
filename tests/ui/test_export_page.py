"""The Export page: the files with their proof, and one zip that verifies."""

import json

from test_pages import app

from rsdtr.ui import downloads, state
from rsdtr.verify import unchanged, verify


def test_files_are_shown_with_their_proof_and_handed_out_as_one_zip(tmp_path):
    test = app(eps="0.9")
    test.switch_page("pages/4_Export.py").run()
    assert any("Nothing exported yet" in caption.value for caption in test.caption)
    test.session_state[state.FORMATS] = ["safetensors"]
    test.button(key="export").click().run()
    assert not test.exception
    assert not test.error
    table = next(frame.value for frame in test.dataframe if "proved" in frame.value)
    assert table["file"].tolist() == ["model.safetensors", "rsdtr_model.py"]
    assert table["proved"].all()
    assert (table["largest difference of logits"] < 1e-4).all()
    assert (table["mean difference"] <= table["largest difference of logits"]).all()
    assert table["images"].tolist() == [64, 64]
    (exported,) = test.session_state["exports"].values()
    unchanged(exported.folder)
    assert json.loads(downloads.manifest(exported))["proofs"].keys() == {"safetensors", "python"}
    zipped = downloads._zipped(exported.folder, "digits")
    assert zipped == downloads._zipped(exported.folder, "digits")
    (tmp_path / "digits.zip").write_bytes(zipped)
    assert verify(tmp_path / "digits.zip").keys() == {"safetensors", "python"}
