"""What can be asked of a plan: every control, its place in the address, and answers that wait."""

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from rsdtr.jobs import job_queue
from rsdtr.jobs.job import Job
from rsdtr.jobs.kinds import grid_search
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import PUBLISHED, WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning import winners_on_disk
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import Target, plan
from rsdtr.ui.explore import tradeoff
from rsdtr.ui.plan import accuracy, layer_overrides, networks, search_status
from rsdtr.ui.shared import session
from tests.support.pages import DIGITS, app, metrics_of

ASKED = {
    "ask": "target",
    "kind": "fcr",
    "fcr": "3.0",
    "rule": "tight",
    "objective": "macs",
    "layers": "all",
    "own": "layer1.0.conv1:0.4,layer2.0.conv1:dense",
}


@pytest.fixture(scope="module")
def digits():
    return profile(load_model(DIGITS), model_spec(DIGITS))


def ratio(test: AppTest, name: str) -> float:
    return float(metrics_of(test)[name].split()[0])


def layer_table(test: AppTest):
    return test.dataframe[0].value.set_index("layer")


def switch(test: AppTest, key: str, value: str) -> AppTest:
    test.button_group(key=key).set_value(value).run()
    assert not test.exception
    return test


def test_a_target_is_reached_with_an_eps_for_each_layer():
    test = switch(app(), session.ASK, "target")
    assert ratio(test, "PCR") >= 4
    assert layer_table(test)[layer_overrides.EPS_COLUMN].nunique() > 1
    test.number_input(key=session.PCR).set_value(9.0).run()
    assert ratio(test, "PCR") >= 9
    switch(test, session.KIND, "fcr")
    assert ratio(test, "FCR") >= 2
    assert ratio(test, "PCR") < 9
    switch(test, session.KIND, "mb")
    megabytes = test.number_input(key=session.MB).value
    assert float(metrics_of(test)["File size"].split()[0]) <= 1000 * megabytes
    switch(test, session.ASK, "eps")
    assert test.slider(key=session.EPS).value == 0.6


def test_the_tight_rule_and_the_objective_change_the_plan(digits):
    test = switch(app(eps="0.5"), session.RULE, "tight")
    switch(test, session.OBJECTIVE, "macs")
    expected = plan(digits, 0.5, rule="tight", objective="macs")
    assert metrics_of(test)["FCR"].startswith(f"{expected.fcr:.2f}")
    assert (test.query_params["rule"], test.query_params["objective"]) == ("tight", "macs")


def test_all_layers_may_be_asked_for(digits):
    test = switch(app(), session.POLICY, "all")
    expected = plan(digits, 0.6, layers="all")
    assert metrics_of(test)["PCR"].startswith(f"{expected.pcr:.2f}")


def test_an_address_restores_all_that_was_asked():
    test = app(**ASKED)
    assert not test.error
    assert test.button_group(key=session.ASK).value == "target"
    assert test.button_group(key=session.KIND).value == "fcr"
    assert test.number_input(key=session.FCR).value == 3
    assert test.button_group(key=session.RULE).value == "tight"
    assert test.button_group(key=session.OBJECTIVE).value == "macs"
    assert test.button_group(key=session.POLICY).value == "all"
    rows = layer_table(test)
    assert rows.loc["layer1.0.conv1", layer_overrides.EPS_COLUMN] == 0.4
    assert rows.loc["layer2.0.conv1", layer_overrides.DENSE_COLUMN]
    for name, value in ASKED.items():
        assert test.query_params[name] == value


def test_defaults_are_left_out_of_the_address():
    test = app()
    assert set(test.query_params) == set()
    switch(test, session.RULE, "tight")
    assert set(test.query_params) == {"model", "eps", "rule"}
    switch(test, session.RULE, "paper")
    assert set(test.query_params) == {"model", "eps"}


def test_going_back_undoes_what_was_chosen():
    test = switch(app(), session.RULE, "tight")
    del test.query_params["rule"]  # as the address before it
    test.run()
    assert test.button_group(key=session.RULE).value == "paper"


@pytest.mark.parametrize(
    "query",
    [
        {"ask": "everything"},
        {"ask": "target", "kind": "gold", "pcr": "nan"},
        {"ask": "target", "pcr": "-3"},
        {"ask": "target", "pcr": "1e999"},
        {"rule": "<b>", "objective": "speed", "layers": "../x", "weights": "other"},
        {"latency_batch": "7"},
        {"own": "nolayer:0.4,layer1.0.conv1:7,conv1:,::,layer1.0.conv2:nan"},
    ],
)
def test_nonsense_is_read_as_if_it_was_not_there(query):
    test = app(**query)
    assert not test.exception
    assert not test.error
    assert not test.warning
    expected = app(**({"ask": "target"} if query.get("ask") == "target" else {}))
    assert metrics_of(test) == metrics_of(expected)
    assert set(test.query_params) <= {"model", "eps", "ask", "pcr"}


def test_a_target_out_of_reach_is_one_sentence_and_nothing_is_lost():
    test = app(own="layer1.0.conv1:0.4", ask="target")
    before = metrics_of(test)
    test.number_input(key=session.PCR).set_value(5000.0).run()
    assert not test.exception
    (error,) = test.error
    assert "cannot reach PCR" in error.value.replace("\\", "")
    assert "at most" in error.value
    test.number_input(key=session.PCR).set_value(4.0).run()
    assert not test.error
    assert metrics_of(test) == before
    assert test.query_params["own"] == "layer1.0.conv1:0.4"


def test_an_own_eps_is_given_on_the_layers_page_and_reset_on_explore(digits):
    test = app()
    test.switch_page("pages/layers.py").run()
    test.selectbox(key=session.LAYER).set_value("layer3.0.conv2").run()
    test.number_input(key=session.OWN_EPS).set_value(0.25).run()
    assert not test.exception
    assert test.query_params["own"] == "layer3.0.conv2:0.25"
    expected = plan(digits, 0.6, own={"layer3.0.conv2": 0.25})
    ring = next(layer for layer in expected.layers if layer.name == "layer3.0.conv2")
    assert f"{ring.storage:,}" in {metric.value for metric in test.metric}
    test.switch_page("pages/explore.py").run()
    assert metrics_of(test)["PCR"].startswith(f"{expected.pcr:.2f}")
    assert layer_table(test).loc["layer3.0.conv2", layer_overrides.EPS_COLUMN] == 0.25
    test.button(key="reset").click().run()
    assert metrics_of(test)["PCR"].startswith(f"{plan(digits, 0.6).pcr:.2f}")
    assert "own" not in test.query_params


def test_a_layer_is_kept_dense_and_let_go(digits):
    test = app()
    test.switch_page("pages/layers.py").run()
    test.selectbox(key=session.LAYER).set_value("layer3.0.conv2").run()
    test.toggle(key=session.OWN_DENSE).set_value(True).run()
    assert test.query_params["own"] == "layer3.0.conv2:dense"
    assert any("asked to stay dense" in info.value for info in test.info)
    test.toggle(key=session.OWN_DENSE).set_value(False).run()
    assert "own" not in test.query_params


def test_another_model_starts_without_pinned_layers():
    test = app(own="layer1.0.conv1:0.4", weights="none")
    test.selectbox(key=session.MODEL).set_value("cifar10_resnet20").run()
    assert not test.exception
    assert "own" not in test.query_params


def test_edits_of_the_table_are_checked():
    names = ["a", "b", ""]
    edited = layer_overrides.edited({"b": 0.3}, names, {0: {layer_overrides.EPS_COLUMN: 0.414}})
    assert edited == {"a": 0.41, "b": 0.3}
    assert layer_overrides.edited({"b": 0.3}, names, {1: {layer_overrides.EPS_COLUMN: None}}) == {}
    assert layer_overrides.edited({"b": 0.3}, names, {1: {layer_overrides.EPS_COLUMN: 7}}) == {
        "b": 0.3
    }
    assert layer_overrides.edited(
        {"b": 0.3}, names, {"1": {layer_overrides.DENSE_COLUMN: True}}
    ) == {"b": None}
    assert (
        layer_overrides.edited({"b": None}, names, {1: {layer_overrides.DENSE_COLUMN: False}}) == {}
    )
    assert (
        layer_overrides.edited({}, names, {2: {layer_overrides.DENSE_COLUMN: True}}) == {}
    )  # it cannot be a ring


def test_pinned_layers_are_one_text_both_ways():
    names = ["conv1", "layer1.0.conv1"]
    text = "conv1:dense,layer1.0.conv1:0.4"
    assert layer_overrides.as_text(layer_overrides.parse(text, names)) == text
    assert layer_overrides.parse("layer1.0.conv1:0.4,conv1:dense", names) == layer_overrides.parse(
        text, names
    )


def test_damage_is_measured_when_asked_and_targets_use_it(monkeypatch):
    monkeypatch.setattr(accuracy, "DAMAGE_IMAGES", 64)  # 512 take eight times as long
    # An objective of its own: what is measured is remembered for all sessions of the server.
    test = app(ask="target", pcr="6", objective="macs")
    assert any("guess of each layer" in caption.value for caption in test.caption)
    before = layer_table(test)[layer_overrides.EPS_COLUMN].tolist()
    test.button(key="damage").click().run()
    assert not test.exception
    assert not test.error
    assert any("measured on 64 images of digits" in caption.value for caption in test.caption)
    assert layer_table(test)[layer_overrides.EPS_COLUMN].tolist() != before
    assert ratio(test, "PCR") >= 6
    assert "damage" not in {button.key for button in test.button}


def test_synthetic_weights_say_that_accuracy_means_nothing():
    test = app(weights="none")
    assert not test.error
    assert "no accuracy" in test.warning[0].value
    assert test.button(key="measure").disabled
    test.switch_page("pages/recover.py").run()
    assert any("no accuracy to win back" in info.value for info in test.info)
    assert "finetune" not in {button.key for button in test.button}
    test.switch_page("pages/export.py").run()
    assert any("synthetic weights" in info.value for info in test.info)
    switch(test, session.WEIGHTS, "published")
    assert not test.warning
    assert "weights" not in test.query_params


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """The digits as if they were too large to be searched while somebody waits, and unknown."""
    monkeypatch.setattr(winners_on_disk, "BUNDLED", tmp_path)
    monkeypatch.setattr(networks, "CHEAP_SCALARS", 0)
    monkeypatch.setattr(networks, "CHEAP_GRID_SCALARS", 0)
    for memo in (networks._networks, networks._plans, tradeoff._fronts, search_status._begun):
        monkeypatch.setattr(memo, "_results", type(memo._results)())


@pytest.mark.usefixtures("cold")
def test_a_cold_network_never_blocks_the_page(digits):
    test = app(eps="0.5")
    assert not test.exception
    assert not test.error
    assert not test.metric
    assert any("being searched" in info.value for info in test.info)
    # The worker finds two ε_p: the nearest one is shown, and the page says which.
    network = networks.network(DIGITS, PUBLISHED)
    for eps in (0.4, 0.7):
        networks.planned(network, Choices(eps=eps))
    test.run()
    assert any("below is 0.40, the nearest" in info.value for info in test.info)
    assert metrics_of(test)["PCR"].startswith(f"{plan(digits, 0.4).pcr:.2f}")
    test.button(key="search_now").click().run()
    assert metrics_of(test)["PCR"].startswith(f"{plan(digits, 0.5).pcr:.2f}")
    assert test.slider(key=session.EPS).value == 0.5


@pytest.mark.usefixtures("cold")
def test_a_target_waits_for_the_whole_grid():
    test = app(ask="target", pcr="4")
    assert not test.exception
    assert any("still to be searched" in info.value for info in test.info)
    assert test.number_input(key=session.PCR).value == 4


@pytest.fixture
def searched(monkeypatch):
    """The job that searches ahead, which a test changes, and what is asked of it."""
    calls, known = [], {}
    monkeypatch.setattr(search_status, "queue_search", lambda _, weights: calls.append(weights))
    monkeypatch.setattr(search_status, "search_job", lambda *_: known.get("job"))
    monkeypatch.setattr(search_status, "jobs", lambda: list(known.values()))
    monkeypatch.setattr(job_queue, "cancel", lambda _: calls.append("cancel"))
    known["job"] = Job("0" * 16, "grid_search", "rings", "", "running", 0.0, 1, nice=True)
    return calls, known


@pytest.mark.usefixtures("cold")
def test_a_search_is_queued_watched_and_cancelled(searched):
    calls, known = searched
    known["job"] = replace(known["job"], done=12, total=100, seconds_left=31.0)
    test = app(weights="none")
    assert not test.exception
    assert calls == [WeightsSource.of("none")]
    assert any("The page follows by itself" in info.value for info in test.info)
    (bar,) = (e for e in test.get("progress") if "Searching" in e.proto.text)
    assert bar.proto.text == "Searching ahead: 12 of 100 rings, about 35 s left"
    test.button(key="stop_search").click().run()
    assert calls == [WeightsSource.of("none"), "cancel"]
    known["job"] = replace(known["job"], state="cancelled")
    test.run()
    assert any("rings are not searched yet" in text.value for text in test.sidebar.caption)
    test.button(key="search").click().run()
    assert calls == [WeightsSource.of("none"), "cancel", WeightsSource.of("none")]


@pytest.mark.usefixtures("cold")
def test_a_network_waits_while_others_are_searched_or_times_are_taken(searched):
    calls, known = searched
    known["job"] = replace(known["job"], state="queued")
    test = app()
    assert not test.exception
    assert any("Other networks are searched now" in text.value for text in test.sidebar.caption)
    assert {"search", "stop_search"}.isdisjoint({button.key for button in test.button})
    times = Job("1" * 16, "layer_times", "times", "", "running", 0.0, 2, exclusive=True)
    known["other"] = times
    test.run()
    assert any("Times are taken now. The rings" in text.value for text in test.sidebar.caption)
    known["job"] = replace(known["job"], state="running")
    test.run()
    assert "stop_search" in {button.key for button in test.button}
    assert calls == [PUBLISHED]


@pytest.mark.usefixtures("cold")
def test_a_folder_for_no_job_is_no_reason_to_show_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(search_status, "queue_search", grid_search.queue_search)
    test = app(eps="0.5")
    assert not test.exception
    assert f"no worker for {DIGITS}" in caplog.text
    assert any("rings are not searched yet" in text.value for text in test.sidebar.caption)


@pytest.mark.usefixtures("cold")
def test_what_the_worker_has_stored_is_taken_over(digits):
    from rsdtr.planning.winners_on_disk import save_winners

    app(eps="0.5")
    plan(digits, 0.5)
    assert save_winners(digits)
    test = app(eps="0.5")
    assert metrics_of(test)["PCR"].startswith(f"{plan(digits, 0.5).pcr:.2f}")


def test_solved_fronts_do_no_more_damage_than_uniform_ones(digits):
    network = networks.network(DIGITS, PUBLISHED)
    winners_on_disk.load_winners(network.profile)  # as the page does
    fronts = tradeoff.fronts(network, Choices())
    uniform = {round(point.reached, 6): point.damage for point in fronts.uniform}
    assert len(fronts.solved) == len(fronts.uniform) > 10
    for point, bound in zip(fronts.solved, fronts.uniform, strict=True):
        assert point.reached >= bound.reached - 1e-9
        assert point.damage <= bound.damage + 1e-9
    assert uniform
    by_file = tradeoff.fronts(network, Choices(target=Target(kind="mb", value=0.5)))
    assert by_file.uniform[0].reached > by_file.uniform[-1].reached


def test_a_move_of_the_slider_is_not_undone_by_the_address_of_before():
    """The browser tells of it with the address that it had, if the last one is on its way."""
    test = app(eps="0.58")
    test.slider(key=session.EPS).set_value(0.59).run()
    test.query_params[session.EPS] = "0.58"
    test.slider(key=session.EPS).set_value(0.60).run()
    assert test.slider(key=session.EPS).value == 0.60
    assert test.query_params[session.EPS] == "0.6"
