"""The main job in a real browser: pick, move the slider, fine-tune, export, download, reload."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from rsdtr import jobs
from rsdtr.data import load_data
from rsdtr.evaluate import accuracy
from rsdtr.saved import load

ROOT = Path(__file__).parents[2]
DIGITS = "digits_resnet20"
SECONDS = 1000  # playwright counts milliseconds


@pytest.fixture(scope="module")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium here: in CI the browser test must run")
        pytest.skip("no chromium here: install it to run the browser test")
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server of the app as `make run` starts it, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--server.port", str(port), "--server.headless", "true"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", *options],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
        for job in jobs.listed():  # one of a test that has failed outlives the server
            if job.worker is not None:
                job.worker.kill()


@pytest.fixture
def page(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1200})
        page.set_default_timeout(120 * SECONDS)
        yield page
        browser.close()


def settle(page: Page) -> None:
    """Wait until the page's script has run to its end."""
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')"
        "?.getAttribute('data-test-script-state') === 'notRunning'"
    )


def metric(page: Page, label: str) -> str:
    box = page.get_by_test_id("stMetric").filter(has_text=label)
    return box.get_by_test_id("stMetricValue").inner_text().strip()


def visit(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("heading", name=name, exact=True).first.wait_for()
    settle(page)


def test_pick_move_fine_tune_export_download_reload(page, address, tmp_path):
    page.goto(f"{address}/?model={DIGITS}&eps=0.58")
    expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=120 * SECONDS)
    settle(page)
    before = metric(page, "PCR")

    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
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
    saved = load(manifest.parent)
    assert (saved.plan.model, saved.plan.eps) == (DIGITS, 0.6)
    assert saved.plan.pcr == pytest.approx(pcr, abs=0.006)
    assert (manifest.parent / "model.onnx").stat().st_size > 0
    test = load_data(None, saved.spec).test
    reached = accuracy(saved.model, test)
    # The page measured the fine-tuned network on the same images before it was exported.
    assert reached.percent == pytest.approx(saved.metrics["accuracy"], abs=1e-9)
    assert reached.percent >= 97
