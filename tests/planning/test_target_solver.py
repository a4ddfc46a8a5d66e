import itertools

import numpy as np
import pytest

from rsdtr.errors import PlanError, UnknownName
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import Target, plan, planned_bytes
from rsdtr.planning.target_solver import Damage, solve, total_damage, uniform_front
from rsdtr.search.candidate import GRID, Question
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def small():
    return profile(varied(), varied_spec())


@pytest.fixture(scope="module")
def digits():
    return profile(load_model("digits_resnet20"), model_spec("digits_resnet20"))


def reached(decided, kind, costs):
    if kind == "mb":
        return planned_bytes(costs, decided) / 1e6
    return decided.pcr if kind == "pcr" else decided.fcr


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [("pcr", 1.3, "paper"), ("pcr", 1.5, "tight"), ("fcr", 1.2, "paper"), ("mb", 0.03, "tight")],
)
def test_the_target_is_reached_and_never_at_more_damage_than_one_eps_for_all(
    small, kind, value, rule
):
    target = Target(kind=kind, value=value)
    objective = "macs" if kind == "fcr" else "storage"
    decided = solve(small, target, rule=rule, objective=objective)
    assert decided.eps is None
    assert decided.target == target
    enough = (lambda x: x <= value) if kind == "mb" else (lambda x: x >= value)
    assert enough(reached(decided, kind, small))
    uniform = [
        made
        for made in uniform_front(small, rule=rule, objective=objective)
        if enough(reached(made, kind, small))
    ]
    assert total_damage(small, decided) <= min(total_damage(small, u) for u in uniform) + 1e-9


def test_the_solution_is_close_to_the_best_of_all_combinations(small):
    """Two layers only: every pair of ε_p on a grid, tried one after another."""
    decided = solve(small, Target(kind="pcr", value=1.45))
    names = ("body", "wide")
    best = np.inf
    for pair in itertools.product((None, *GRID[::3]), repeat=2):
        made = plan(small, None, own=dict(zip(names, pair, strict=True)))
        if made.pcr >= 1.45:
            best = min(best, total_damage(small, made))
    assert total_damage(small, decided) <= best * 1.02


def test_measured_damage_moves_the_choice(small):
    ascending = ((0.2, 0.01), (0.5, 0.1), (0.9, 1.0))
    fragile = Damage({"body": [(e, 50 * d) for e, d in ascending], "wide": ascending})
    robust = Damage({"body": ascending, "wide": [(e, 50 * d) for e, d in ascending]})
    target = Target(kind="pcr", value=1.3)
    errors = [
        {layer.name: layer.relative_error for layer in solve(small, target, damage=d).layers}
        for d in (fragile, robust)
    ]
    assert errors[0]["body"] < errors[1]["body"]
    assert errors[0]["wide"] > errors[1]["wide"]


def test_damage_between_and_beyond_its_points():
    damage = Damage({"conv": ((0.2, 0.01), (0.4, 0.04))})
    found = damage.at("conv", np.array([0.1, 0.2, 0.2 * 2**0.5, 0.4, 0.8]))
    assert found == pytest.approx([0.0025, 0.01, 0.02, 0.04, 0.16])


def test_damage_never_falls_as_the_error_grows():
    damage = Damage({"conv": ((0.2, 0.05), (0.4, 0.01), (0.6, 0.2))})
    found = damage.at("conv", np.linspace(0.05, 0.95, 50))
    assert (np.diff(found) >= 0).all()


def test_pinned_layers_keep_their_eps_or_stay_dense(small):
    decided = solve(small, Target(kind="pcr", value=1.1), own={"wide": None, "point": 0.9})
    by_name = {layer.name: layer for layer in decided.layers}
    assert by_name["wide"].kept_dense is not None
    assert by_name["point"].eps == 0.9
    uniform = plan(small, 0.4, own={"body": 0.7, "wide": None})
    by_name = {layer.name: layer for layer in uniform.layers}
    assert by_name["body"].eps == 0.7
    assert by_name["wide"].kept_dense == "asked to stay dense"
    assert uniform.label == "ε_p 0.4 with 1 layers pinned"


def test_what_cannot_be_asked(small):
    with pytest.raises(PlanError, match=r"varied cannot reach PCR ≥ 50: .* it is PCR 2\.6 at"):
        solve(small, Target(kind="pcr", value=50))
    with pytest.raises(PlanError, match=r"cannot reach file ≤ 0\.001 MB: .* MB at least"):
        solve(small, Target(kind="mb", value=0.001))
    with pytest.raises(PlanError, match="damage of layer body was not measured"):
        solve(small, Target(kind="pcr", value=1.2), damage=Damage({"wide": [(0.5, 0.1)]}))
    with pytest.raises(UnknownName, match="no layer 'tail'"):
        plan(small, 0.4, own={"tail": 0.3})
    with pytest.raises(PlanError, match="there is no ε_p for body, wide"):
        plan(small, None)


def test_choices_decide_as_plan_and_solve_do(small):
    uniform = Choices(eps=0.45, rule="tight", own=(("body", None),)).decide(small)
    expected = plan(small, 0.45, rule="tight", own={"body": None})
    assert uniform.layers == expected.layers
    target = Target(kind="fcr", value=1.2)
    solved = Choices(target=target).decide(small)
    assert solved.objective == "macs"
    assert solved.layers == solve(small, target, objective="macs").layers


def test_a_plan_asks_the_winners_that_are_known(digits):
    question = Question("paper", "storage", 0.6)
    layer = digits.layers[3]
    first = digits.winner(layer, question)
    assert digits.winners.known(layer.name, question) is first
    assert digits.winner(layer, question) is first
