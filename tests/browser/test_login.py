"""Who may use a server that has an [auth] section: tried with a provider on this machine."""

import re
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from scripts.serving import free_port, running, serving
from tests.support.driving import settle

PAGES = ("", "Layers", "Recover", "Compare", "Export", "Learn")
METADATA = "/.well-known/openid-configuration"
CLOSED = "Skip to main content RSDTR Explorer login Log in"
SECRETS = """
[auth]
redirect_uri = "{app}/oauth2callback"
cookie_secret = "random enough for a test that is over in a minute"
client_id = "explorer"
client_secret = "known to both"
server_metadata_url = "{provider}"
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """An OpenID Connect provider that believes everybody who they say they are."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    with serving(command, f"http://127.0.0.1:{port}", METADATA) as root:
        yield root


@pytest.fixture(scope="module")
def guarded(provider, tmp_path_factory) -> Iterator[str]:
    """A server of the app that lets in only whom the provider knows."""
    port, secrets = free_port(), tmp_path_factory.mktemp("secrets") / "secrets.toml"
    root = f"http://127.0.0.1:{port}"
    secrets.write_text(SECRETS.format(app=root, provider=f"{provider}{METADATA}"))
    with running("--secrets.files", str(secrets), port=port):
        yield root


def shown(page: Page) -> str:
    """All words of a page and of its sidebar, once it is drawn; names of icons are among them."""
    settle(page)
    return " ".join(page.get_by_test_id("stAppViewContainer").inner_text().split())


def test_pages_open_by_logging_in_and_close_by_logging_out(page, guarded, provider):
    page.route("**/*", lambda route: route.continue_() if local(route) else route.abort())
    for name in PAGES:
        page.goto(f"{guarded}/{name}?model=digits_resnet20")
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        assert shown(page) == CLOSED, name

    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{provider}/**")
    page.get_by_placeholder("sub").fill("a reader")
    page.get_by_role("button", name="Authorize", exact=True).click()
    page.wait_for_url(re.compile(re.escape(guarded)))
    expect(page.get_by_role("heading", name="Explore", exact=True)).to_be_visible()
    page.goto(f"{guarded}/Export?model=digits_resnet20")
    expect(page.get_by_role("button", name="Export and prove")).to_be_visible()
    assert page.get_by_role("button", name="Log in").count() == 0

    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="End session").click()  # of the provider, which leads back
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    page.goto(f"{guarded}/Export?model=digits_resnet20")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    assert shown(page) == CLOSED


def local(route) -> bool:
    """The provider's own pages ask for a style sheet from elsewhere."""
    return route.request.url.startswith("http://127.0.0.1:")
