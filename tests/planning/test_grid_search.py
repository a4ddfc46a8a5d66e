"""The whole grid by several processes: its answers, its order, and how it ends."""

import logging
import math

import pytest
import torch

from rsdtr.planning.grid_search import (
    COARSE_REST,
    FINE,
    FIRST,
    cores,
    grid_size,
    grid_tasks,
    profile_grid,
)
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.search.candidate import (
    COARSE,
    GRID,
    OBJECTIVES,
    RULES,
    Question,
)
from tests.support.family import workers
from tests.support.networks import varied, varied_spec

pytestmark = pytest.mark.process

PER_LAYER = len(GRID) * len(RULES) * len(OBJECTIVES)


def fresh() -> ModelProfile:
    return profile(varied(), varied_spec())


def known(of: ModelProfile) -> dict:
    return {(name, question): winner for name, question, winner in of.winners}


@pytest.fixture(scope="module")
def whole() -> ModelProfile:
    torch.set_num_threads(1)  # it is made before the fixture of every test is
    found = fresh()
    steps = list(profile_grid(found, processes=2, layers={"body", "point"}))
    assert steps[0].done == 0
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    last = steps[-1]
    assert (last.done, last.total, last.seconds_left) == (2 * PER_LAYER, 2 * PER_LAYER, 0)
    assert 0 < last.coarse_seconds <= last.seconds
    assert workers() == []
    return found


def test_every_winner_is_the_direct_search_s(whole):
    assert len(known(whole)) == 2 * PER_LAYER
    again = fresh()
    for (name, question), winner in known(whole).items():
        direct = again.layer(name).search(question).winner
        assert (winner.shift, winner.ranks) == (direct.shift, direct.ranks), question
        assert math.isclose(winner.relative_error, direct.relative_error, abs_tol=1e-9)


def test_a_complete_grid_starts_no_process(whole, monkeypatch):
    monkeypatch.setattr("rsdtr.planning.grid_search._answer", None)
    (only,) = profile_grid(whole, layers={"body", "point"})
    assert (only.done, only.total, only.coarse_seconds) == (2 * PER_LAYER, 2 * PER_LAYER, 0)


def test_stopping_keeps_what_was_done_and_the_rest_comes_later(whole):
    found = fresh()

    def should_stop() -> bool:
        return len(found.winners) > 60

    for _ in profile_grid(found, should_stop, processes=2, layers={"body", "point"}):
        pass
    kept = known(found)
    assert 60 < len(kept) < 2 * PER_LAYER
    assert workers() == []
    missing = {(task.layer.name, question) for task in grid_tasks(found, {"body", "point"})
               for question in task.questions}  # fmt: skip
    assert missing == known(whole).keys() - kept.keys()
    steps = list(profile_grid(found, processes=2, layers={"body", "point"}))
    assert steps[0].done == len(kept)
    assert known(found).keys() == known(whole).keys()


def test_closing_in_the_middle_leaves_no_process():
    found = fresh()
    grid = profile_grid(found, processes=2)
    while next(grid).done < 20:
        pass
    assert len(workers()) == 2
    grid.close()
    assert workers() == []
    assert len(found.winners) >= 20


def test_a_process_that_dies_takes_only_its_task_along(caplog):
    found = fresh()
    grid = profile_grid(found, processes=2, layers={"body", "point"})
    while next(grid).done < 20:
        pass
    workers()[0].kill()
    with caplog.at_level(logging.WARNING):
        last = list(grid)[-1]
    assert "has died" in caplog.text
    assert 20 < last.done < last.total
    grid = profile_grid(found, processes=1, layers={"body", "point"})
    assert [step.done for step in grid][-1] == last.total


def test_when_all_processes_die_it_ends(caplog):
    found = fresh()
    grid = profile_grid(found, processes=1, layers={"body"})
    while next(grid).done < 5:
        pass
    workers()[0].kill()
    with caplog.at_level(logging.WARNING):
        assert list(grid)[-1].done < PER_LAYER
    assert workers() == []


def test_a_search_that_fails_leaves_its_question_open(monkeypatch):
    def search(self: LayerProfile, question: Question) -> None:
        raise ArithmeticError("no convergence")

    monkeypatch.setattr(LayerProfile, "search", search)
    found = fresh()
    last = list(profile_grid(found, processes=1, layers={"point"}))[-1]
    assert (last.done, last.total, len(found.winners)) == (0, PER_LAYER, 0)


def test_the_most_useful_comes_first():
    tasks = grid_tasks(fresh())
    order = [(task.layer.name, len(task.questions), task.first) for task in tasks]
    assert order == [
        ("wide", len(FIRST), True),
        ("body", len(FIRST), True),
        ("wide", len(COARSE_REST), False),
        ("body", len(COARSE_REST), False),
        ("wide", PER_LAYER - 4 * len(COARSE), False),
        ("body", PER_LAYER - 4 * len(COARSE), False),
        *((name, len(FIRST), False) for name in ("grouped", "stem", "point", "head")),
        *((name, PER_LAYER - len(FIRST), False) for name in ("grouped", "stem", "point", "head")),
    ]
    asked = [(task.layer.name, question) for task in tasks for question in task.questions]
    assert len(asked) == len(set(asked)) == 6 * PER_LAYER
    assert set(tasks[0].questions) == {Question("paper", "storage", eps) for eps in COARSE}


def test_large_kernels_are_several_tasks(monkeypatch):
    monkeypatch.setattr("rsdtr.planning.grid_search.SPLIT_SCALARS", 1)
    _, _, *fine = grid_tasks(fresh(), {"wide"})
    assert len(fine) == 6  # 94 ε_p, 16 in each
    assert [question for task in fine for question in task.questions] == [
        question for question in FINE if question.eps not in COARSE
    ]


def test_at_least_one_core():
    assert cores() >= 1


def test_a_layer_too_large_for_the_whole_grid_has_the_coarse_one_of_the_paper_s_rule(monkeypatch):
    found = fresh()
    large = found.layer("body").kernel.numel()
    assert found.layer("point").kernel.numel() < large
    monkeypatch.setattr("rsdtr.planning.layer_profile.LARGE", large)
    tasks = grid_tasks(found, {"body", "point"})
    asked = [question for task in tasks if task.layer.name == "body" for question in task.questions]
    assert asked == list(FIRST)
    assert [(q.rule, q.objective, q.eps) for q in FIRST] == [
        ("paper", "storage", eps) for eps in COARSE
    ]
    assert grid_size(found, {"body", "point"}) == len(COARSE) + PER_LAYER
    assert sum(len(task.questions) for task in tasks) == len(COARSE) + PER_LAYER
    assert tasks[-1].layer.name == "body"  # it comes last: each of its searches takes seconds
