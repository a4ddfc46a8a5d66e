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


@pytest.fixture(scope="module")  # other tests look whether a process of theirs is left
def address() -> Iterator[str]:
    """A server of the app as `make run` starts it, on a free port."""
    try:
        with running() as root:
            yield root
    finally:
        for job in job_queue.listed():  # one of a test that has failed outlives the server
            if job.worker is not None:
                job.worker.kill()


@pytest.fixture
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Page:
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.set_default_timeout(120 * SECONDS)
    return page
