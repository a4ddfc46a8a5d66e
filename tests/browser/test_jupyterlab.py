"""A notebook as people open it: in JupyterLab, where its slider is moved."""

import shutil
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from scripts.serving import free_port, serving
from tests.support.checkout import ROOT

NOTEBOOK = "02_one_model.ipynb"
# What the figure of the layers shows: the outlines of its bars.
BARS = "[...document.querySelectorAll('.bars path')].map((path) => path.getAttribute('d')).join()"
IDLE = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'"
MOVES = 5  # of a hundredth of ε_p


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Iterator[str]:
    """JupyterLab with the notebook, as if nobody had used it before."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder)
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the kernel
    port = free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with serving(command, f"http://127.0.0.1:{port}", "/api") as root:
        yield root


def run_cell(page: Page, beginning: str) -> None:
    cell = page.locator(".jp-CodeCell").filter(has_text=beginning).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")


def test_the_slider_of_a_notebook_moves_its_figure(page, lab):
    page.goto(f"{lab}/lab/tree/{NOTEBOOK}")
    page.wait_for_function(IDLE)  # a cell that is run before the kernel is there is not run
    run_cell(page, "import pandas as pd")
    run_cell(page, 'look = explore("digits_resnet20")')
    slider = page.locator(".widget-slider [role=slider]")
    slider.wait_for()
    page.locator(".bars path").first.wait_for()
    before, eps = page.evaluate(BARS), float(slider.get_attribute("aria-valuenow"))
    slider.focus()
    for _ in range(MOVES):
        slider.press("ArrowRight")
    page.wait_for_function(f"(before) => {BARS} !== before", arg=before)
    assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(eps + MOVES / 100)
