import pytest

from rsdtr.errors import PlanError
from rsdtr.planning import one_eps as module
from rsdtr.planning.choices import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.one_eps import one_eps
from rsdtr.planning.plan import Target, plan, planned_bytes
from rsdtr.search.candidate import GRID
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def small():
    return profile(varied(), varied_spec())


def reached(decided, kind, costs):
    if kind == "mb":
        return 1e6 / planned_bytes(costs, decided)
    return decided.pcr if kind == "pcr" else decided.fcr


@pytest.mark.parametrize(
    ("kind", "value"), [("pcr", 1.2), ("pcr", 1.5), ("fcr", 1.1), ("mb", 0.03), ("mb", 0.05)]
)
def test_it_reaches_the_target_closely_or_at_the_smallest_eps(small, kind, value):
    target = Target(kind=kind, value=value)
    decided = one_eps(small, target)
    asked = 1 / value if kind == "mb" else value
    assert reached(decided, kind, small) >= asked
    assert decided.target == target
    assert {layer.eps for layer in decided.layers} - {None} == {decided.eps}
    least = next(eps for eps in GRID if reached(plan(small, eps), kind, small) >= asked)
    assert decided.eps == least or reached(decided, kind, small) <= 1.03 * asked


def test_few_plans_find_it(small, monkeypatch):
    asked = []

    def counted(profile, eps, **options):
        asked.append(eps)
        return plan(profile, eps, **options)

    monkeypatch.setattr(module, "plan", counted)
    for value in (1.1, 1.3, 1.5, 1.6):
        asked.clear()
        one_eps(small, Target(kind="pcr", value=value))
        assert len(asked) <= 7
        assert len(set(asked)) == len(asked)


def test_the_largest_eps_says_what_it_reaches(small):
    with pytest.raises(PlanError, match=r"varied does not reach PCR ≥ 900 by one ε_p: at 0\.95 it"):
        one_eps(small, Target(kind="pcr", value=900))


def test_choices_ask_for_it_and_keep_to_what_is_pinned(small):
    target = Target(kind="pcr", value=1.1)
    decided = Choices(target=target, own=(("wide", None),)).decide(small, uniform=True)
    assert decided.pcr >= 1.1
    assert decided.layers[-1].kept_dense == "asked to stay dense"
    assert Choices(eps=0.4).decide(small, uniform=True).layers == plan(small, 0.4).layers
