"""Explore hands on what it shows: pinned figures, commands, Python, a report and a card."""

import shlex

from click.testing import CliRunner

from rsdtr.commands.cli import cli
from rsdtr.jobs.kinds.network_job import same_plan
from rsdtr.planning.plan import CompressionPlan
from rsdtr.ui.shared import session
from tests.support.pages import DIGITS, app, metrics_of


def deltas(test) -> dict[str, str]:
    return {metric.label.split(",")[0]: metric.delta for metric in test.metric}


def test_figures_tell_their_change_since_the_pin():
    test = app(eps="0.5")
    before = metrics_of(test)
    assert "since A" not in "".join(deltas(test).values())
    test.button(key="pin").click().run()
    assert not test.exception
    assert deltas(test)["PCR"] == "no change since A"
    test.slider(key=session.EPS).set_value(0.6).run()
    after = metrics_of(test)
    change = float(after["PCR"].split()[0]) - float(before["PCR"].split()[0])
    assert abs(float(deltas(test)["PCR"].split()[0]) - change) < 0.011
    assert deltas(test)["File size"].startswith("-")
    compared = test.dataframe[0].value.set_index("figure")
    assert f"{compared.loc['PCR (×)', 'A']:.2f}" == before["PCR"].split()[0]
    assert f"{compared.loc['PCR (×)', 'B']:.2f}" == after["PCR"].split()[0]
    test.button(key="unpin").click().run()
    assert "since A" not in "".join(deltas(test).values())
    assert "unpin" not in {button.key for button in test.button}


def test_the_pin_survives_another_page_and_another_model():
    test = app(eps="0.5")
    test.button(key="pin").click().run()
    test.switch_page("pages/layers.py").run()
    test.switch_page("pages/explore.py").run()
    assert deltas(test)["PCR"] == "no change since A"
    assert test.query_params["eps"] == "0.5"
    assert test.selectbox(key=session.MODEL).value == DIGITS


def test_the_copied_command_and_python_give_the_plan_on_the_page():
    test = app(eps="0.62", objective="macs", own="layer1.0.conv1:0.4,layer1.0.conv2:dense")
    command, code = (element.value for element in test.code[:2])
    result = CliRunner().invoke(cli, [*shlex.split(command)[3:], "--json"])
    decided = CompressionPlan.from_json(result.stdout)
    assert metrics_of(test)["PCR"] == f"{decided.pcr:.2f} ×"
    assert metrics_of(test)["FCR"] == f"{decided.fcr:.2f} ×"
    assert decided.layers[1].eps == 0.4
    names: dict[str, object] = {}
    exec(code, names)
    again = names["decided"]
    assert isinstance(again, CompressionPlan)
    assert same_plan(again).layers == same_plan(decided).layers


def test_a_measured_accuracy_is_pinned_with_its_interval():
    test = app(eps="0.6")  # as its trade-off curve knows it
    assert "n = " in deltas(test)["Accuracy"]
    test.button(key="pin").click().run()
    assert deltas(test)["Accuracy"] == "no change since A"
    rows = test.dataframe[0].value.set_index("figure")["A"]
    assert rows["its interval from (%)"] < rows["accuracy (%)"] < rows["to (%)"]
