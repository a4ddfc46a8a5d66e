"""A copied command and copied Python make the very plan that they were copied from."""

import contextlib
import io
import shlex

import pytest
from click.testing import CliRunner

from rsdtr.commands.cli import cli
from rsdtr.data.datasets import load_data
from rsdtr.models.model_loading import load_model
from rsdtr.models.weights_source import WeightsSource
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Asked, Choices
from rsdtr.planning.damage import measure_damage
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import CompressionPlan, Target

NAME = "digits_resnet20"
CASES = {
    "eps": Asked(NAME, Choices(eps=0.45)),
    "tight": Asked(
        NAME, Choices(eps=0.3, rule="tight", objective="macs", layers=("layer1.*", "conv1"))
    ),
    "own": Asked(
        NAME,
        Choices(own=(("layer1.0.conv1", 0.4), ("layer3.2.conv2", None)), layers=("layer*.conv?",)),
    ),
    "target": Asked(NAME, Choices(target=Target(kind="fcr", value=1.1), layers=("layer1.0.*",))),
    "megabytes": Asked(
        NAME,
        Choices(target=Target(kind="mb", value=1.08), objective="storage", layers=("layer1.0.*",)),
    ),
    "synthetic": Asked(NAME, Choices(eps=0.7), weights=WeightsSource(synthetic=True)),
}


@pytest.fixture(scope="module")
def digits():
    return profile(load_model(NAME), model_spec(NAME))


def by_command(asked: Asked) -> CompressionPlan:
    words = shlex.split(asked.command())
    assert words[:3] == ["python", "-m", "rsdtr"]
    result = CliRunner().invoke(cli, [*words[3:], "--json"])
    assert result.exit_code == 0, result.stderr
    return CompressionPlan.from_json(result.stdout)


def by_python(asked: Asked) -> CompressionPlan:
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(asked.python(), names)
    decided = names["decided"]
    assert isinstance(decided, CompressionPlan)
    assert printed.getvalue().split() == [str(decided.pcr), str(decided.fcr)]
    return decided


def comparable(decided: CompressionPlan) -> dict[str, object]:
    """All of a plan that does not hang on rounding: not the time it took, not the last digits of
    errors, and not which of two neighbouring ε_p with the same ring a target was solved with.
    """
    found = decided.model_dump(exclude={"seconds"})
    for layer in found["layers"]:
        layer["relative_error"] = round(layer["relative_error"], 9)
        if decided.target is not None:
            del layer["eps"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_same_plan_again(name, digits):
    asked = CASES[name]
    costs = profile(load_model(NAME, asked.weights), model_spec(NAME)) if asked.weights else digits
    expected = comparable(asked.choices.decide(costs))
    assert comparable(by_command(asked)) == expected
    assert comparable(by_python(asked)) == expected


def test_the_same_plan_again_by_measured_damage(digits):
    spec = model_spec(NAME)
    choices = Choices(target=Target(kind="pcr", value=1.03), layers=("layer1.0.*", "layer2.1.*"))
    damage = measure_damage(
        load_model(NAME), digits, load_data(None, spec).train, 8, layers=choices.layers
    )
    asked = Asked(NAME, choices, calibrate=8)
    expected = comparable(choices.decide(digits, damage))
    assert expected != comparable(choices.decide(digits))
    assert comparable(by_command(asked)) == expected
    assert comparable(by_python(asked)) == expected


def test_latency_is_measured_by_both():
    asked = Asked(NAME, Choices(objective="latency", latency_batch=4), calibrate=8, data="my data")
    command, code = asked.command("compress"), asked.python()
    assert "rsdtr compress digits_resnet20" in command
    assert "--objective latency --latency-batch 4" in command
    assert "--data 'my data'" in command
    assert "fastest_rings(decided, costs, batch=4)" in code
    assert "load_data('my data', spec)" in code
    compile(code, "copied", "exec")
