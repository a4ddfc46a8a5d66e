"""Times side by side, and the peak of live tensors."""

import time

import pytest
import torch

from rsdtr.measuring import stopwatch
from rsdtr.measuring.stopwatch import interleaved, machine, peak_bytes, thread_count


def test_works_take_turns_and_slow_ones_are_told_from_fast():
    order = []

    def work(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds)

        return run

    found = interleaved({"fast": work("fast", 0.001), "slow": work("slow", 0.01)}, runs=3)
    assert order[:4] == ["fast", "fast", "slow", "slow"]  # each warms up
    assert order[4:10] == ["fast", "slow"] * 3
    assert 1 <= found["fast"].best_ms <= found["fast"].median_ms
    assert 10 <= found["slow"].best_ms <= found["slow"].median_ms
    assert found["fast"].iqr_ms >= 0
    assert found["fast"].runs >= 3


def counted(monkeypatch, interruptions, **options):
    """How often works ran, by name, when the system tells of these interruptions in turn."""
    counts = dict.fromkeys(("a", "b"), 0)
    told = iter(interruptions)
    monkeypatch.setattr(stopwatch, "_interruptions", lambda: next(told, 0))

    def work(name):
        def run():
            counts[name] += 1
            time.sleep(0.001 if name == "a" else 0.004)

        return run

    found = interleaved({name: work(name) for name in counts}, **options)
    return counts, found


def test_interrupted_measurements_are_made_again_and_left_out(monkeypatch):
    # Two warm-up runs each, not looked at; then a quiet one of a and an interrupted one of b.
    told = [0] * 8 + [0, 0, 0, 1]
    counts, found = counted(monkeypatch, told, runs=3)
    assert counts == {"a": 2 + 3, "b": 2 + 4}
    assert (found["a"].runs, found["a"].disturbed) == (3, 0)
    assert (found["b"].runs, found["b"].disturbed) == (3, 0)


def test_where_all_are_interrupted_they_are_used_and_said_to_be(monkeypatch):
    counts, found = counted(monkeypatch, range(1000), runs=2)
    assert counts == {"a": 2 + 8, "b": 2 + 8}
    assert (found["a"].runs, found["a"].disturbed) == (8, 8)


def test_a_hopeless_work_is_given_up_and_time_ends_it(monkeypatch):
    counts, _ = counted(monkeypatch, [], runs=10, hopeless=2.0)
    assert counts == {"a": 2 + 10, "b": 2 + 3}
    counts, _ = counted(monkeypatch, [], runs=10, seconds=0.0)
    assert counts == {"a": 2 + 3, "b": 2 + 3}
    counts, _ = counted(monkeypatch, [], runs=10, seconds=0.0, at_least=1)
    assert counts == {"a": 2 + 1, "b": 2 + 1}


def test_a_work_that_was_interrupted_each_time_is_not_known_to_be_hopeless(monkeypatch):
    # Two warm-up runs each, not looked at; then a is quiet, and b is interrupted four times.
    told = [0] * 8 + [0, 0, 0, 1] * 4
    counts, found = counted(monkeypatch, told, runs=6, hopeless=2.0)
    assert counts == {"a": 2 + 6, "b": 2 + 5}
    assert (found["b"].runs, found["b"].disturbed) == (1, 0)


def test_short_works_are_repeated(monkeypatch):
    counts, _ = counted(monkeypatch, [], runs=1, at_least_ms=8.0)
    assert counts["a"] > counts["b"] > 2 + 1


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), thread_count(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_peak_bytes_by_hand():
    def work():
        a = torch.empty(1000)  # 4,000 bytes
        b = a + 1  # 8,000
        c = b.view(10, 100)  # a view is nothing new
        del a, b  # 4,000: c holds on to b's memory
        c.mul_(2)  # nor is writing in place
        d = c.repeat(2, 1)  # 12,000
        del c
        d.sum()  # 8,000 and 4

    assert peak_bytes(work) == 12_000


def test_peak_bytes_sees_the_backward_pass_and_not_what_was_there():
    x = torch.randn(1000, requires_grad=True)

    def work():
        y = x.exp()  # 4,000, needed by the backward pass
        z = y.exp()  # 8,000
        z.backward(torch.ones(1000))

    assert 12_000 <= peak_bytes(work) <= 20_000
    assert peak_bytes(lambda: x.data.mul_(1)) == 0


def test_machine_names_what_decides_a_timing():
    assert f"torch {torch.__version__}" in machine()
    assert " cores" in machine()


def test_another_clock_may_tell_the_time():
    ticks = iter(range(100))
    found = interleaved({"a": lambda: None}, runs=3, clock=lambda: float(next(ticks)))
    assert (found["a"].median_ms, found["a"].iqr_ms, found["a"].best_ms) == (1000, 0, 1000)
