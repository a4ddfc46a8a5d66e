"""Two readers in a real browser: one finishes the lesson, one shares what an ε_p saves."""

import re

from playwright.sync_api import expect

from rsdtr.learn.numbers import turns
from rsdtr.learn.quiz import quiz
from rsdtr.learn.text import STEPS
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.search.paper_rule import candidates, smallest
from tests.support.driving import metric, right, settle

DIGITS = "digits_resnet20"
SMALL = "layer1.0.conv1"


def test_finish_the_lesson(page, address):
    layer = profile(load_model(DIGITS), model_spec(DIGITS)).layer(SMALL)
    found = candidates(layer.kernel, 0.5)
    asked = quiz(layer.shape, turns(found)[0], smallest(found), 0.5, layer.input_size)

    page.goto(f"{address}/Learn?model={DIGITS}&layer={SMALL}&eps=0.5")
    for number, step in enumerate(STEPS, 1):
        heading = page.get_by_role("heading", name=f"{number}. {step.title}", exact=True)
        expect(heading).to_be_visible()
        settle(page)
        expect(page.locator(".js-plotly-plot").first).to_be_visible()
        if number < len(STEPS):
            page.get_by_role("button", name="Next", exact=True).click()
    expect(page.get_by_role("button", name="Next", exact=True)).to_be_disabled()

    wrong = asked[-1].options[asked[-1].right - 1]
    for number, question in enumerate(asked):
        answer = wrong if question is asked[-1] else question.options[question.right]
        box = page.get_by_test_id("stRadio").nth(number)
        box.get_by_text(answer, exact=True).click()
    page.get_by_role("button", name="Check my answers").click()
    expect(page.get_by_role("heading", name="5 of 6 right")).to_be_visible()
    expect(page.get_by_text(f"Not {wrong}.")).to_be_visible()
    assert page.get_by_test_id("stException").count() == 0


def test_explore_a_trade_off_and_share_the_link(browser, page, address):
    def figures(of):
        return [metric(of, label) for label in ("PCR", "FCR", "File size")]

    page.goto(f"{address}/?model={DIGITS}&eps=0.5")
    expect(page.get_by_test_id("stMetric").first).to_be_visible()
    settle(page)
    before = figures(page)
    right(page, 3)
    page.wait_for_url(re.compile(r"eps=0\.53(&|$)"))
    settle(page)
    expect(page.get_by_test_id("stMetric").first).not_to_contain_text(before[0])

    other = browser.new_context().new_page()  # of somebody else: nothing shared but the address
    other.goto(page.url)
    expect(other.get_by_test_id("stMetric").first).to_be_visible()
    settle(other)
    assert figures(other) == figures(page)
    expect(other.get_by_role("slider").first).to_have_value("0.53")
    assert other.get_by_test_id("stException").count() == 0
