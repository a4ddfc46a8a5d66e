"""What the Export page makes of a browser's answer. A real browser: tests/browser."""

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.errors import ExportError
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import PUBLISHED
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ui.export import browser_run
from rsdtr.ui.plan.networks import Network

GOOD = {
    "dense_ms": 2.0, "compressed_ms": 0.5, "max_difference": 1e-6, "argmax_agreement": 1.0,
    "n": 16, "device": "a *browser*",
}  # fmt: skip


def script() -> None:
    import streamlit as st

    from rsdtr.models.model_loading import load_model
    from rsdtr.models.weights_source import PUBLISHED
    from rsdtr.models.zoo import model_spec
    from rsdtr.planning.model_profile import profile
    from rsdtr.planning.plan import plan
    from rsdtr.ui.export import browser_run
    from rsdtr.ui.plan.networks import Network
    from rsdtr.ui.shared import session

    spec = model_spec("digits_resnet20")
    model = load_model(spec.name)
    network = Network(spec, model, profile(model, spec), PUBLISHED)
    decided = plan(network.profile, 0.8, layers=["layer3.2.*"])
    at = network.configuration(decided)
    if "begun" not in st.session_state:
        st.session_state["begun"] = True
        empty = (b"",) * 4
        st.session_state[session.WEB_TASK] = browser_run.Task("1", at, None, *empty, (1, 16, 16))
    task = st.session_state.get(session.WEB_TASK)
    if task is not None:
        browser_run._run(task, decided)
    elif at in session.web_runs():
        browser_run._show(session.web_runs()[at].found)
    st.text([(p.pcr == decided.pcr, p.ratio) for p in browser_run.points(network)])


def drawn(monkeypatch, answer: object) -> AppTest:
    monkeypatch.setattr(browser_run, "_component", lambda: lambda **_: answer)
    return AppTest.from_function(script, default_timeout=60).run()


def test_an_answer_is_shown_and_joins_the_trade_off_of_its_network(monkeypatch):
    test = drawn(monkeypatch, GOOD)
    assert [metric.value for metric in test.metric] == ["2 ms", "0.5 ms", "0.25 ×"]
    assert "100 % of 16 images; logits within 1.0e-06" in test.caption[0].value
    assert r"a \*browser\*" in test.caption[0].value
    assert test.text[0].value == "[(True, 0.25)]"


def test_until_it_answers_nothing_is_shown(monkeypatch):
    test = drawn(monkeypatch, None)
    assert not test.metric
    assert not test.error
    assert test.text[0].value == "[]"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"error": "no memory"}, "could not run the networks"),
        (GOOD | {"dense_ms": 0}, "answer cannot be read"),
        ("text", "answer cannot be read"),
    ],
)
def test_a_bad_answer_is_one_sentence_and_the_button_comes_back(monkeypatch, answer, said):
    test = drawn(monkeypatch, answer)
    assert said in test.error[0].value
    test.run()
    assert not test.error


def offered(folder: str, identity: str | None) -> None:
    from pathlib import Path

    from rsdtr.jobs.kinds.export import ExportedFiles
    from rsdtr.models.model_loading import load_model
    from rsdtr.models.weights_source import PUBLISHED
    from rsdtr.models.zoo import model_spec
    from rsdtr.planning.model_profile import profile
    from rsdtr.planning.plan import plan
    from rsdtr.ui.export import browser_run
    from rsdtr.ui.plan.networks import Network

    spec = model_spec("digits_resnet20")
    model = load_model(spec.name)
    network = Network(spec, model, profile(model, spec), PUBLISHED)
    decided = plan(network.profile, 0.8, layers=["layer3.2.*"])
    exported = ExportedFiles("a label", identity, Path(folder), ())
    browser_run.offer(network, decided, None, None, exported)


@pytest.mark.parametrize(
    ("file", "identity", "said"),
    [
        ("model.pt2", None, "Export ONNX as well"),
        ("model.onnx", "of an earlier model", "Export again, to run the present model"),
        ("model.onnx", None, "Not run yet"),
    ],
)
def test_only_the_present_model_as_onnx_is_offered(tmp_path, file, identity, said):
    (tmp_path / file).write_bytes(b"x")
    words = {"folder": str(tmp_path), "identity": identity}
    test = AppTest.from_function(offered, default_timeout=60, kwargs=words).run()
    assert said in test.caption[0].value
    assert len(test.button) == (said == "Not run yet")


def test_networks_too_large_for_a_page_are_refused_before_anything_is_made(monkeypatch):
    spec = model_spec("digits_resnet20")
    model = load_model(spec.name)
    network = Network(spec, model, profile(model, spec), PUBLISHED)
    decided = plan(network.profile, 0.8, layers=["layer3.2.*"])
    monkeypatch.setattr(browser_run, "MOST_MB", 1)
    with pytest.raises(ExportError, match="the two networks have 2 MB, more than the 1 MB"):
        browser_run._task(network, decided, None, None, None, b"x" * 1_000_000)
