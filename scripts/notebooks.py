"""Runs the notebooks and saves them with their figures, each also as a picture for readers that
run no scripts, such as a forge's preview: python scripts/notebooks.py [NAME …]

Needs the packages of requirements-dev.txt and a chromium on the PATH.
"""

import base64
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import plotly.io as pio
from nbclient import NotebookClient
from playwright.sync_api import Page, sync_playwright

from rsdtr.system.atomic_files import SHARED, new_file

FOLDER = Path(__file__).parents[1] / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"  # of a kernel that has ended: nothing moves
WIDTH = 860


def main(names: Sequence[str]) -> None:
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    paths = [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb"))
    notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    for notebook in notebooks.values():
        NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}},
            store_widget_state=False,
        ).execute()  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(120_000)
        for path, notebook in notebooks.items():
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)  # times of day: they say nothing
                for output in cell.get("outputs", ()):
                    output.get("data", {}).pop(WIDGET, None)
                    if FIGURE in output.get("data", {}):
                        output.data["image/png"] = _picture(page, output.data[FIGURE])
            with new_file(path, SHARED) as temporary:
                nbformat.write(notebook, temporary)
            print(path.name)
        browser.close()


def _picture(page: Page, figure: dict[str, Any]) -> str:
    """A figure's picture as a notebook holds it."""
    shown = pio.from_json(json.dumps(figure), skip_invalid=True)
    height = int(shown.layout.height or 450)
    shown.update_layout(paper_bgcolor="white")
    page.set_viewport_size({"width": WIDTH + 16, "height": height + 16})  # the margins of a page
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "figure.html"
        pio.write_html(shown, html, default_width=f"{WIDTH}px", default_height=f"{height}px")
        page.goto(html.as_uri())
        page.locator(".main-svg").first.wait_for()
        page.wait_for_timeout(400)
        return base64.b64encode(page.screenshot()).decode()


if __name__ == "__main__":
    main(sys.argv[1:])
