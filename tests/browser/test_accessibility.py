"""axe-core finds nothing serious on any page, in the light theme and in the dark one."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from driving import SECONDS, settle
from playwright.sync_api import expect

# Every page, and of Learn a step of each kind: one figure, maps and tables, questions.
PLACES = ("", "Layers", "Recover", "Export", "Learn", "Learn?lesson=6", "Learn?lesson=8")
# Rules that Streamlit itself breaks, on these elements and on no others, and why that has to be.
STREAMLITS_OWN: dict[str, tuple[str, str]] = {}


def serious(page) -> list[str]:
    """What axe-core calls serious or critical, but for STREAMLITS_OWN: rule, element and why."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not (
            rule["id"] in STREAMLITS_OWN and STREAMLITS_OWN[rule["id"]][0] in str(node["target"])
        )
    ]


def test_a_violation_is_found(browser):
    page = browser.new_page()
    page.set_content("<html lang='en'><title>Page</title><main><button></button></main></html>")
    assert [text.partition(":")[0] for text in serious(page)] == ["button-name"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_violation(browser, address, scheme):
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1440, "height": 1200})
    page.set_default_timeout(120 * SECONDS)
    for place in PLACES:
        page.goto(f"{address}/{place}")
        expect(page.locator("h1")).to_be_visible()
        settle(page)
        expect(page.locator("[data-stale=true]")).to_have_count(0)
        assert serious(page) == [], place
