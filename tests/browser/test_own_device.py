"""The exported network in the visitor's own browser, with nothing from any other host."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from rsdtr.errors import ExportError
from rsdtr.exports.browser_runtime import runtime_folder
from tests.support.driving import metric, settle, visit


@pytest.fixture(scope="module", autouse=True)
def _runtime():
    try:
        runtime_folder()
    except ExportError as error:
        pytest.skip(str(error))


def test_both_networks_run_in_the_browser_and_their_time_joins_the_trade_off(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/Export?model=digits_resnet20&eps=0.6")
    page.get_by_role("button", name="Export and prove").wait_for()
    settle(page)
    page.get_by_role("button", name="safetensors + manifest").click()
    settle(page)
    page.get_by_role("button", name="Export and prove").click()
    page.get_by_role("heading", name="Proof").wait_for()
    settle(page)

    page.get_by_role("button", name="Run in this browser").click()
    expect(page.get_by_test_id("stMetric").first).to_be_visible()
    settle(page)
    dense, compressed = (
        float(metric(page, f"{name}, here").split()[0]) for name in ("Dense", "Compressed")
    )
    ratio = float(metric(page, "Compressed / dense").split()[0])
    assert ratio == pytest.approx(compressed / dense, rel=0.02)
    expect(page.get_by_text("Same class as PyTorch for 100 % of 16 images")).to_be_visible()
    assert page.get_by_role("button", name="Run again in this browser").is_enabled()
    web = {urlsplit(url) for url in asked if not url.startswith(("data:", "blob:"))}
    assert any(url.path.endswith(".wasm") for url in web)
    assert {url.hostname for url in web} == {"127.0.0.1"}

    visit(page, "Explore")
    expect(page.get_by_text("your browser", exact=True)).to_be_visible()
    assert page.get_by_test_id("stException").count() == 0
