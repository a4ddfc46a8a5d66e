"""Addresses and the browser's history: links, one entry a page, and the way back."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from scripts.serving import running
from tests.support.driving import metric, right, settle, visit

SHOWN = "model=digits_resnet20&eps=0.5"
# As they were handed on when every page was a file of its own name; they work for ever.
LINKS = {
    f"Layers?{SHOWN}&layer=layer2.0.conv1": "Layers",
    f"Recover?{SHOWN}": "Recover",
    f"Compare?{SHOWN}": "Compare",
    f"Export?{SHOWN}": "Export",
    f"Learn?lesson=2&{SHOWN}&layer=layer2.0.conv1": "Learn",
    f"?{SHOWN}": "Explore",
}
# Whether one of the page's select boxes shows this, as a text or in its field.
CHOSEN = """name => [...document.querySelectorAll('[data-testid=stSelectbox]')].some(
    box => [box.innerText, ...[...box.querySelectorAll('input')].map(field => field.value)]
        .join(' ').includes(name))"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that nobody has visited before."""
    with running() as root:
        yield root


def entries(page: Page) -> int:
    settle(page)
    length: int = page.evaluate("history.length")
    return length


def shows(page: Page, name: str, eps: str) -> None:
    expect(page.get_by_role("heading", name=name, exact=True, level=1)).to_be_visible()
    settle(page)
    expect(page.get_by_role("slider").first).to_have_value(eps)


@pytest.mark.parametrize("link", LINKS)
def test_a_link_to_a_page_opens_it_even_for_the_first_visitor_of_a_server(page, address, link):
    page.goto(f"{address}/{link}")
    shows(page, LINKS[link], "0.5")
    assert page.get_by_role("dialog").count() == 0
    assert page.url == f"{address}/{link}"
    assert entries(page) == 2  # with the empty page that a window begins with
    if "layer=" in link:
        page.wait_for_function(CHOSEN, arg="layer2.0.conv1")


@pytest.mark.parametrize("asked", ["", f"?{SHOWN}"])
def test_every_page_is_one_entry_and_back_leads_through_them(page, address, asked):
    page.goto(f"{address}/{asked}")
    page.get_by_role("heading", name="Explore", exact=True).wait_for()
    first = entries(page)
    names = ("Layers", "Recover", "Compare", "Export", "Learn", "Explore")
    for number, name in enumerate(names, 1):
        visit(page, name)
        assert entries(page) == first + number, name
    for name in (*reversed(names[:-1]), "Explore"):
        page.go_back()
        expect(page.get_by_role("heading", name=name, exact=True, level=1)).to_be_visible()
        settle(page)
    assert page.url == f"{address}/{asked}"
    assert entries(page) == first + len(names)


def test_back_returns_to_a_page_with_its_model_and_eps(page, address):
    page.goto(f"{address}/?weights=none&{SHOWN}")
    shows(page, "Explore", "0.5")
    right(page, 1)
    page.wait_for_url("**eps=0.51*")
    settle(page)
    pcr = metric(page, "PCR")
    before = entries(page)
    visit(page, "Layers")
    right(page, 1)
    page.wait_for_url("**/Layers?**eps=0.52*")
    assert entries(page) == before + 2  # the page, and what was chosen on it

    page.go_back()
    shows(page, "Layers", "0.51")
    page.go_back()
    shows(page, "Explore", "0.51")
    assert "weights=none" in page.url
    assert metric(page, "PCR") == pcr
    page.go_back()
    shows(page, "Explore", "0.5")  # what was chosen is undone
    page.go_forward()
    shows(page, "Explore", "0.51")
    page.reload()
    shows(page, "Explore", "0.51")
    assert metric(page, "PCR") == pcr
    assert page.get_by_test_id("stException").count() == 0


def test_back_undoes_the_first_choice_of_an_address_that_said_nothing(page, address):
    page.goto(address)
    shows(page, "Explore", "0.6")
    assert page.url == f"{address}/"
    right(page, 1)
    page.wait_for_url("**/?model=digits_resnet20&eps=0.61")
    page.go_back()
    shows(page, "Explore", "0.6")
    assert page.url == f"{address}/"


def test_nonsense_in_an_address_is_taken_out_of_it(page, address):
    page.goto(f"{address}/?eps=nan&model=no&rule=best")
    shows(page, "Explore", "0.6")
    page.wait_for_url("**/?eps=0.6&model=digits_resnet20")
