"""Timings of networks side by side."""

import time

import pytest
from torch import Tensor, nn

from rsdtr.errors import RsdtrError
from rsdtr.timing import Timing, network_timings


class Sleeps(nn.Module):
    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.milliseconds = milliseconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.milliseconds / 1000)
        return x


def test_rows_come_in_order_and_tell_slow_from_fast():
    steps: list[tuple[int, int]] = []
    rows = network_timings(
        {"dense": Sleeps(1), "pipeline": Sleeps(8)},
        (1, 2, 2),
        batches=(1, 3),
        runs=3,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [(row.scope, row.engine, row.batch, row.variant) for row in rows] == [
        ("network", "eager", 1, "dense"),
        ("network", "eager", 1, "pipeline"),
        ("network", "eager", 3, "dense"),
        ("network", "eager", 3, "pipeline"),
    ]
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(isinstance(row, Timing) and row.iqr_ms >= 0 for row in rows)
    assert rows[0].median_ms >= 1
    assert rows[1].median_ms >= 8


def test_impossible_batches_are_refused():
    with pytest.raises(RsdtrError, match="batch=0: give at least 1"):
        network_timings({"dense": nn.Identity()}, (1, 2, 2), batches=(0,))
