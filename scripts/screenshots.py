"""Takes the README's pictures: starts the app, drives it in a headless browser, writes docs/*.png.

    python scripts/screenshots.py [explore layers recover compare export learn]

Needs the packages of requirements-dev.txt and a chromium on the PATH.
"""

import io
import shutil
import sys
import time
from collections.abc import Sequence

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from serving import ROOT, running

PORT = 8629
ADDRESS = f"http://127.0.0.1:{PORT}"
SHOWN = "model=digits_resnet20&eps=0.60"
SECONDS = 1000  # playwright counts milliseconds
MOST_BYTES = 150_000  # a picture; a larger one is reduced to 256 colours


def main(names: Sequence[str]) -> None:
    with running(port=PORT), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1180}, color_scheme="light")
        page.set_default_timeout(300 * SECONDS)
        for name in names or PICTURES:
            PICTURES[name](page)
        browser.close()


def _explore(page: Page) -> None:
    page.goto(f"{ADDRESS}/?{SHOWN}")
    page.get_by_text("File size", exact=True).first.wait_for()
    _settle(page)
    page.get_by_text("Searching ahead:").first.wait_for(state="hidden")
    _settle(page)
    page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 0)")
    _take(page, "explore", 1090)


def _layers(page: Page) -> None:
    page.goto(f"{ADDRESS}/Layers?{SHOWN}")
    page.get_by_text("Four cores, one per mode").wait_for()
    _settle(page)
    _take(page, "layers", 1180)


def _recover(page: Page) -> None:
    """Recalibrated, with what that won."""
    page.goto(f"{ADDRESS}/Recover?{SHOWN}")
    page.get_by_role("button", name="Recalibrate", exact=True).click()
    page.get_by_text("Top-1 with 95 % intervals").wait_for()
    _settle(page)
    _take(page, "recover", 1180)


def _export(page: Page) -> None:
    """Two files, written and proved."""
    page.goto(f"{ADDRESS}/Export?{SHOWN}")
    page.get_by_role("button", name="Export and prove", exact=True).click()
    page.get_by_role("heading", name="Download", exact=True).wait_for()
    _settle(page)
    _take(page, "export", 1180)


def _compare(page: Page) -> None:
    """The usual methods, finished; from the PCRs down to the second axis."""
    page.goto(f"{ADDRESS}/Compare?{SHOWN}")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("heading", name="Two side by side").wait_for()
    page.get_by_role("button", name="Cancel").wait_for(state="hidden")
    _settle(page)
    page.get_by_text("PCR to reach", exact=True).evaluate("label => label.scrollIntoView()")
    page.get_by_test_id("stMain").evaluate("main => main.scrollBy(0, -90)")  # under the bar on top
    _take(page, "compare", 1080)


def _learn(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 1560})
    page.goto(f"{ADDRESS}/Learn?{SHOWN}&layer=layer1.0.conv1&lesson=5")
    page.get_by_text("The cores: white is zero").wait_for()
    _settle(page)
    _take(page, "learn", 1560)


def _take(page: Page, name: str, height: int) -> None:
    page.mouse.move(1, 1)  # off the figures: they show buttons under a mouse
    page.wait_for_timeout(SECONDS)
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": 1440, "height": height})
    picture, path = Image.open(io.BytesIO(shot)).convert("RGB"), ROOT / "docs" / f"{name}.png"
    picture.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def _settle(page: Page) -> None:
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')"
        "?.getAttribute('data-test-script-state') === 'notRunning'"
    )
    time.sleep(1.5)  # the figures' last transition


PICTURES = {
    "explore": _explore,
    "layers": _layers,
    "recover": _recover,
    "compare": _compare,
    "export": _export,
    "learn": _learn,
}


if __name__ == "__main__":
    main(sys.argv[1:])
