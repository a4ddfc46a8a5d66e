"""Takes the README's pictures: starts the app, drives it in a headless browser, writes docs/*.png.

    python scripts/screenshots.py

Needs the packages of requirements-dev.txt and a chromium on the PATH.
"""

import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
PORT = 8629
ADDRESS = f"http://127.0.0.1:{PORT}"


def main() -> None:
    command = [sys.executable, "-m", "streamlit", "run", "app.py"]
    options = ["--server.port", str(PORT), "--server.headless", "true"]
    server = subprocess.Popen([*command, *options], cwd=ROOT)
    try:
        _wait_for_server()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 1180}, color_scheme="light")
            page.set_default_timeout(120_000)
            page.goto(f"{ADDRESS}/?model=digits_resnet20&eps=0.60")
            page.get_by_text("File size", exact=True).first.wait_for()
            _settle(page)
            page.get_by_role("button", name="Measure accuracy").click()
            page.get_by_text("Bars are 95 % intervals").wait_for()
            page.get_by_text("Searching ahead").wait_for(state="hidden")
            _settle(page)
            page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 0)")
            page.screenshot(path=ROOT / "docs" / "explore.png")
            page.get_by_role("link", name="Layers", exact=True).click()
            page.get_by_role("heading", name="Layers", exact=True).wait_for()
            _settle(page)
            page.screenshot(path=ROOT / "docs" / "layers.png")
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


def _wait_for_server() -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{ADDRESS}/_stcore/health", timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise SystemExit(f"the app did not answer at {ADDRESS} within a minute")


def _settle(page: Page) -> None:
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')"
        "?.getAttribute('data-test-script-state') === 'notRunning'"
    )
    time.sleep(1.5)  # the figures' last transition


if __name__ == "__main__":
    (ROOT / "docs").mkdir(exist_ok=True)
    main()
