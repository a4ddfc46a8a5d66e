"""Every page as axe-core sees it, for those who use a keyboard, a screen reader, or see less."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.support.driving import settle

CHOSEN = "model=digits_resnet20&eps=0.5&layer=layer1.0.conv1"
PAGES = (
    "", "Layers", "Layers?weights=own", "Recover", "Compare", "Export",
    "Learn?lesson=1", "Learn?lesson=5",
)  # fmt: skip
AXE = Axe()
# Streamlit's own place to drop a file has a name and is marked as presentational: minor, to axe.
DROP = '<section role="presentation"'


def violations(page: Page) -> list[str]:
    """One line per element that breaks a rule, of whatever impact."""
    found = AXE.run(page).response["violations"]
    return [
        f"{rule['impact']}: {rule['help']}: {element['target']} {element['html']}"
        for rule in found
        for element in rule["nodes"]
        if not (rule["impact"] == "minor" and element["html"].startswith(DROP))
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(page, address, path, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}/{path}{'&' if '?' in path else '?'}{CHOSEN}")
    page.get_by_role("heading", level=1).wait_for()
    settle(page)
    if path == "":  # all of it, not the first screen alone
        page.get_by_role("heading", name="Layers", exact=True).wait_for()
        settle(page)
    page.wait_for_function("document.querySelectorAll('[data-testid=stSkeleton]').length === 0")
    assert violations(page) == []


def test_axe_finds_a_picture_without_a_text(page):
    page.set_content("<html lang=en><title>t</title><main><h1>t</h1><img src=x.png></main></html>")
    (found,) = violations(page)
    assert found.startswith("critical: Images must have alternative text")
