"""The main job in a real browser: pick, move the slider, fine-tune, export, download, reload."""

import re
from zipfile import ZipFile

import pytest
from playwright.sync_api import expect

from rsdtr.compressed.saved import load
from rsdtr.data.datasets import load_data
from rsdtr.exports.verify import verify
from rsdtr.measuring.accuracy import accuracy
from tests.support.driving import metric, right, settle, visit

DIGITS = "digits_resnet20"


def test_pick_move_fine_tune_export_download_reload(page, address, tmp_path):
    page.goto(f"{address}/?model={DIGITS}&eps=0.58")
    expect(page.get_by_test_id("stMetric").first).to_be_visible()
    settle(page)
    before = metric(page, "PCR")

    right(page, 2)
    page.wait_for_url(re.compile(r"eps=0\.6(&|$)"))
    settle(page)
    expect(page.get_by_test_id("stMetric").first).not_to_contain_text(before)
    pcr = float(metric(page, "PCR").split()[0])

    visit(page, "Recover")
    page.get_by_label("Epochs").fill("1")
    page.get_by_label("Epochs").press("Enter")
    settle(page)
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    page.get_by_role("button", name="Discard and start over").wait_for()
    settle(page)

    visit(page, "Export")
    expect(page.get_by_text("fine-tuned, 1 epoch")).to_be_visible()
    page.get_by_role("button", name="Export and prove").click()
    page.get_by_role("heading", name="Proof").wait_for()
    settle(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="All files (zip)").click()
    archive = tmp_path / "files.zip"
    download.value.save_as(archive)
    assert page.get_by_test_id("stException").count() == 0

    with ZipFile(archive) as files:
        files.extractall(tmp_path / "files")
    (manifest,) = (tmp_path / "files").rglob("manifest.json")
    # As `python -m rsdtr verify` does: every byte, and every proof in a fresh process again.
    assert set(verify(archive)) == {"safetensors", "python", "onnx"}
    saved = load(manifest.parent)
    assert (saved.plan.model, saved.plan.eps) == (DIGITS, 0.6)
    assert saved.plan.pcr == pytest.approx(pcr, abs=0.006)
    assert (manifest.parent / "model.onnx").stat().st_size > 0
    test = load_data(None, saved.spec).test
    reached = accuracy(saved.model, test)
    # The page measured the fine-tuned network on the same images before it was exported.
    assert reached.percent == pytest.approx(saved.metrics["accuracy"], abs=1e-9)
    assert reached.percent >= 97
