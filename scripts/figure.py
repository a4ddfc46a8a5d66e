"""A picture of a figure that was written as HTML, for the README: python scripts/figure.py IN OUT.

Needs the packages of requirements-dev.txt and a chromium on the PATH.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(source: Path, target: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 900, "height": 450}, device_scale_factor=1.5)
        page.goto(source.resolve().as_uri())
        page.locator(".main-svg").first.wait_for()
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
