"""A server of the app and a browser, for the journeys of these tests."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rsdtr.jobs import job_queue
from scripts.serving import running
from tests.support.driving import SECONDS

expect.set_options(timeout=120 * SECONDS)  # it does not heed a page's own timeout


@pytest.fixture(scope="session")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium here: in CI the browser tests must run")
        pytest.skip("no chromium here: install it to run the browser tests")
    return found


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A server of the app as `make run` starts it, on a free port: one for all these tests."""
    try:
        with running() as root:
            yield root
    finally:
        for job in job_queue.listed():  # one of a test that has failed outlives the server
            if job.worker is not None:
                job.worker.kill()


@pytest.fixture(scope="module")  # playwright's event loop would be in the way of other tests
def started(chromium) -> Iterator[Browser]:
    """One browser for a file of tests; it knows nothing but what a test's own context holds."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def browser(started) -> Iterator[Browser]:
    """The browser without a window, before a test and after it."""
    yield started
    for context in started.contexts:
        context.close()


@pytest.fixture
def page(browser) -> Page:
    """A window of a visitor who comes for the first time."""
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.set_default_timeout(120 * SECONDS)
    return page
