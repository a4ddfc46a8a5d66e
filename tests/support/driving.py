"""What the browser tests do to a page, and read from it."""

from playwright.sync_api import Page

SECONDS = 1000  # playwright counts milliseconds


def settle(page: Page) -> None:
    """Wait until the page's script has run to its end."""
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')"
        "?.getAttribute('data-test-script-state') === 'notRunning'"
    )


def visit(page: Page, name: str) -> None:
    """Another page, by its link."""
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("heading", name=name, exact=True, level=1).wait_for()
    settle(page)


def metric(page: Page, label: str) -> str:
    box = page.get_by_test_id("stMetric").filter(has_text=label)
    return box.get_by_test_id("stMetricValue").inner_text().strip()


def right(page: Page, times: int) -> None:
    """Move the first slider so many steps to the right."""
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(times):
        slider.press("ArrowRight")
        page.wait_for_timeout(250)  # less than the page takes, more than the slider itself
