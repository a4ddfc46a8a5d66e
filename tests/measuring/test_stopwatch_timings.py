"""Timings of functions side by side."""

import time

import pytest
import torch
from torch import Tensor, nn

from rsdtr.errors import RsdtrError
from rsdtr.measuring.stopwatch import Timing, eager, timings


def sleeping(milliseconds):
    def run(x: Tensor) -> None:
        assert x.shape == (3, 1, 2, 2)
        assert torch.get_num_threads() == 2
        time.sleep(milliseconds / 1000)

    return run


def test_rows_come_in_order_and_tell_slow_from_fast():
    rows = timings(
        {"dense": sleeping(1), "pipeline": sleeping(8)},
        (1, 2, 2),
        scope="layer1",
        engine="eager",
        batch=3,
        runs=3,
        threads=2,
    )
    assert all(isinstance(row, Timing) and row.iqr_ms >= 0 for row in rows)
    assert [(row.scope, row.engine, row.batch, row.variant) for row in rows] == [
        ("layer1", "eager", 3, "dense"),
        ("layer1", "eager", 3, "pipeline"),
    ]
    assert rows[0].median_ms >= 1
    assert rows[1].median_ms >= 8


def test_eagerly_no_gradient_is_kept():
    class Noting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.output = x * nn.Parameter(torch.ones(()))
            return self.output

    model = Noting()
    eager(model)(torch.ones(1))
    assert not model.output.requires_grad
    assert model.training


@pytest.mark.parametrize("name", ["batch", "runs", "threads"])
def test_impossible_numbers_are_refused(name):
    with pytest.raises(RsdtrError, match=f"{name}=0: give at least 1"):
        timings({"dense": eager(nn.Identity())}, (1, 2, 2), **{name: 0})
