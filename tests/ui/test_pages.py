"""Every page on the bundled model: it renders, answers its widgets, and shows no traceback."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.ui.shared import markdown, session
from tests.support.checkout import ROOT
from tests.support.pages import DIGITS, PAGES, app, metrics_of, opened


@pytest.fixture(scope="module")
def decided():
    return plan(profile(load_model(DIGITS), model_spec(DIGITS)), 0.6)


def test_explore_shows_the_plan_of_the_bundled_model(decided):
    test = app()
    assert not test.exception
    assert not test.error
    assert test.selectbox(key=session.MODEL).value == DIGITS
    assert metrics_of(test)["PCR"].startswith(f"{decided.pcr:.2f}")
    assert metrics_of(test)["FCR"].startswith(f"{decided.fcr:.2f}")
    assert len(test.dataframe[0].value) == len(decided.layers)


def test_moving_the_slider_moves_the_figures_and_the_address():
    test = app()
    before = metrics_of(test)["PCR"]
    test.slider(key=session.EPS).set_value(0.3).run()
    assert not test.exception
    assert metrics_of(test)["PCR"] != before
    assert test.query_params[session.EPS] == "0.3"


def test_a_link_restores_model_and_eps():
    test = app(model=DIGITS, eps="0.45")
    assert test.slider(key=session.EPS).value == 0.45


@pytest.mark.parametrize("query", [{"eps": "7"}, {"eps": "nan"}, {"model": "resnet-nine"}])
def test_nonsense_in_the_address_falls_back_to_the_defaults(query):
    test = app(**query)
    assert not test.exception
    assert not test.error
    assert test.slider(key=session.EPS).value == 0.6
    assert test.selectbox(key=session.MODEL).value == DIGITS


def test_weights_that_are_not_to_be_had_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path))
    monkeypatch.delenv("RSDTR_WEIGHTS", raising=False)
    test = app(model="cifar10_vgg16_bn")
    assert not test.exception
    assert len(test.error) == 1
    assert "cifar10" in test.error[0].value
    test.selectbox(key=session.MODEL).set_value(DIGITS).run()
    assert not test.error
    assert "PCR" in metrics_of(test)


@pytest.mark.parametrize("path", PAGES)
def test_each_page_renders_and_the_way_back_keeps_the_choice(path):
    test = app(eps="0.5")
    test.switch_page(path).run()
    assert not test.exception
    assert not test.error
    assert test.slider(key=session.EPS).value == 0.5
    test.switch_page("pages/explore.py").run()
    assert not test.exception
    assert test.slider(key=session.EPS).value == 0.5


def test_layers_names_the_winner_of_the_chosen_layer(decided):
    test = app(eps="0.6")
    test.switch_page("pages/layers.py").run()
    layer = decided.layers[3]
    test.selectbox(key=session.LAYER).set_value(layer.name).run()
    assert not test.exception
    assert f"{layer.storage:,}" in {metric.value for metric in test.metric}
    assert ", ".join(map(str, layer.ranks)) in {metric.value for metric in test.metric}


def test_the_stem_stays_dense_and_says_so():
    test = app()
    test.switch_page("pages/layers.py").run()
    test.selectbox(key=session.LAYER).set_value("conv1").run()
    assert not test.exception
    assert any("stays dense" in info.value for info in test.info)


def test_accuracy_is_measured_when_asked():
    test = app(objective="macs")  # a curve that does not come with the program
    assert metrics_of(test)["Accuracy"] == "–"
    test.button(key="measure").click().run()
    assert not test.exception
    assert not test.error
    assert metrics_of(test)["Accuracy"] != "–"


def test_a_data_folder_that_is_not_there_is_one_sentence():
    test = app()
    test.text_input(key=session.DATA).set_value("/no/such/folder").run()
    test.button(key="measure").click().run()
    assert not test.exception
    assert len(test.error) == 1
    assert "/no/such/folder" in test.error[0].value.replace("\\", "")
    assert metrics_of(test)["Accuracy"] == "–"  # and all the rest of the page is there
    assert len(test.dataframe) == 1


def test_every_page_is_behind_the_log_in_where_one_is_configured(monkeypatch):
    asked = []
    monkeypatch.setattr("streamlit.login", lambda: asked.append(True))
    section = {"cookie_secret": "s"}  # of the server's secrets
    monkeypatch.setattr("streamlit.user_info.get_secrets_auth_section", lambda: section)
    for path in sorted(ROOT.glob("pages/*.py")):
        test = opened(path.name)
        assert not test.exception
        assert [button.label for button in test.main.button] == ["Log in"]
        assert len(test.main) == 2  # the button and a title
        assert len(test.sidebar) == 0
    test.button(key="log_in").click().run()
    assert asked == [True]


def test_every_script_of_a_page_is_a_page_and_none_runs_without_the_frame():
    """Until st.navigation was called once, Streamlit runs them as they are."""
    scripts = sorted(ROOT.glob("pages/*.py"))
    registered = app()._registered_pages.values()
    assert sorted(Path(page["script_path"]) for page in registered) == scripts
    for path in scripts:
        test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        test.switch_page(f"pages/{path.name}").run()
        assert not test.exception
        assert [title.value for title in test.title] == ["Explore"]
        assert any("RSDTR Explorer" in text.value for text in test.sidebar.markdown)


def test_who_has_logged_in_sees_the_page_and_may_log_out(monkeypatch):
    user = {"is_logged_in": False}
    monkeypatch.setattr("streamlit.user_info._get_user_info", lambda: user)
    left = []
    monkeypatch.setattr("streamlit.logout", lambda: left.append(True))
    test = opened("pages/learn.py")
    assert [button.label for button in test.button] == ["Log in"]
    user["is_logged_in"] = True
    test.run()
    assert test.title[0].value == "Learn"
    test.button(key="log_out").click().run()
    assert left == [True]


def test_eps_is_written_alike_on_every_page():
    assert markdown.plain("ε_p 0.6, [x]_1") == "εₚ 0.6, \\[x\\]\\_1"


def test_what_is_below_the_first_screen_comes_when_that_is_drawn():
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    assert not test.exception
    assert "Layers" not in {header.value for header in test.header}
    assert "PCR" in metrics_of(test)
    test.run()  # as the browser asks, once it has drawn the first screen
    assert not test.exception
    assert "Layers" in {header.value for header in test.header}
