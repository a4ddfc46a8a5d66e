"""Five readers at once, each with another network: nothing of one shows at another."""

from dataclasses import dataclass
from functools import cached_property

from playwright.sync_api import Page, expect

from rsdtr.jobs import cancel
from rsdtr.jobs.kinds.grid_search import search_job
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import plan
from tests.support.driving import SECONDS, right, settle


@dataclass(frozen=True)
class Tab:
    """What a reader looks at; weights: None as published, "none" seeded ones."""

    model: str
    weights: str | None
    eps: float

    @property
    def query(self) -> str:
        asked = f"model={self.model}&eps={self.eps:g}"
        return asked if self.weights is None else f"{asked}&weights={self.weights}"

    @cached_property
    def network(self) -> ModelProfile:
        return profile(load_model(self.model, self.weights), model_spec(self.model))

    def pcr(self, steps: int) -> str:
        """As the page writes it, so many hundredths of ε_p further."""
        return f"{plan(self.network, round(self.eps + steps / 100, 2)).pcr:.2f}"


STEPS = 2  # of the slider, a hundredth each
TABS = (
    Tab("digits_resnet20", None, 0.5),
    Tab("digits_resnet20", "none", 0.4),
    Tab("cifar10_resnet20", "none", 0.6),
    Tab("cifar10_resnet32", "none", 0.3),
    Tab("cifar10_resnet44", "none", 0.7),
)


def shows(page: Page, tab: Tab, pcr: str) -> None:
    page.bring_to_front()  # Chromium paints no other, and `settle` waits for a frame
    settle(page)
    box = page.get_by_test_id("stMetric").filter(has_text="PCR")
    expect(box.get_by_test_id("stMetricValue")).to_contain_text(pcr)
    assert f"model={tab.model}" in page.url
    assert page.get_by_test_id("stException").count() == 0


def test_five_tabs_with_different_models_stay_independent(browser, address):
    before = [tab.pcr(0) for tab in TABS]
    after = [tab.pcr(STEPS) for tab in TABS]
    assert len({*before, *after}) == 2 * len(TABS)
    pages = []
    for tab, pcr in zip(TABS, before, strict=True):
        page = browser.new_context(viewport={"width": 1440, "height": 1200}).new_page()
        page.set_default_timeout(120 * SECONDS)
        page.goto(f"{address}/?{tab.query}")
        expect(page.get_by_test_id("stMetric").first).to_be_visible()
        job = search_job(tab.network, WeightsSource.of(tab.weights))
        if job is not None:
            cancel(job.id)  # searches ahead would be what is timed here
        shows(page, tab, pcr)
        pages.append(page)
    for moved, page in enumerate(pages):
        page.bring_to_front()
        right(page, STEPS)
        shows(page, TABS[moved], after[moved])
    for page, tab, pcr in zip(pages, TABS, after, strict=True):
        shows(page, tab, pcr)
