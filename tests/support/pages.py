"""The app's pages without a browser: what opens them, what is clicked, what they show."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.ui.shared import session
from tests.support.checkout import ROOT

EXPLORE = "pages/explore.py"
PAGES = ("pages/layers.py", "pages/recover.py", "pages/compare.py", "pages/export.py")
DIGITS = "digits_resnet20"


def app(**query: str) -> AppTest:
    return opened(EXPLORE, **query)


def opened(path: str, **query: str) -> AppTest:
    """A session that begins with this page, as by a link from elsewhere."""
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    # `switch_page` knows by its file what st.navigation knows by its address, but only later on.
    stem = Path(path).stem
    test._page_hash = calc_hash({"onnx_file": "ONNX"}.get(stem, stem.capitalize()))
    test.session_state[session.UNFOLDED] = True  # no browser draws a first screen here
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def metrics_of(test: AppTest) -> dict[str, str]:
    return {metric.label.split(",")[0]: metric.value for metric in test.metric}


def shown(test: AppTest) -> AppTest:
    assert not test.exception
    assert not test.error
    return test


def click(test: AppTest, key: str) -> AppTest:
    return shown(test.button(key=key).click().run())


def keys(test: AppTest) -> set[str]:
    return {button.key for button in test.button}


def start(test: AppTest, epochs: int, batch: int = 256) -> Job:
    test.number_input(key=session.BATCH_SIZE).set_value(batch)
    test.number_input(key=session.EPOCHS).set_value(epochs).run()
    click(test, "finetune")
    return job_queue.find(test.query_params[session.JOB])
