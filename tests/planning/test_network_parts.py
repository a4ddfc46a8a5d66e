"""Stages, blocks and convolutions of a plan, against numbers added by hand."""

import math

import pytest

from rsdtr.charts.plan import parts_figure
from rsdtr.charts.tables import parts_table
from rsdtr.planning.network_parts import parts
from rsdtr.planning.plan import CompressionPlan, LayerPlan, Ratio

COST = Ratio(original=1, compressed=1)
NAMES = ("conv1", "stage.0.a", "stage.0.down.0", "stage.1.a", "tail.b")


def ring(name: str, error: float) -> LayerPlan:
    """4 × 4 × 3 × 3 = 144 scalars in cores of 4, 4, 3 and 3: 14."""
    return LayerPlan(
        name=name, shape=(4, 4, 3, 3), stride=(1, 1), shift=0, r0=1, ranks=(1, 1, 1, 1),
        storage=14, macs=COST, relative_error=error,
    )  # fmt: skip


def dense(name: str) -> LayerPlan:
    """2 × 3 × 1 × 1 = 6 scalars."""
    return LayerPlan(
        name=name, shape=(2, 3, 1, 1), stride=(1, 1), kept_dense="small", storage=6, macs=COST
    )


@pytest.fixture(scope="module")
def made() -> CompressionPlan:
    layers = (dense("conv1"), ring("stage.0.a", 0.3), ring("stage.0.down.0", 0.4))
    return CompressionPlan(
        model="made", eps=0.5, pcr=1, fcr=1, params=COST, macs=COST, seconds=0,
        layers=(*layers, dense("stage.1.a"), ring("tail.b", 0.2)),
    )  # fmt: skip


def test_parts_add_up_what_their_convolutions_have(made):
    found = {(part.level, part.name): part for part in parts(made)}
    assert [name for level, name in found if level == "stage"] == ["stage", "tail"]
    assert [name for level, name in found if level == "block"] == ["stage.0", "stage.1"]
    assert tuple(name for level, name in found if level == "convolution") == NAMES
    stage, block = found["stage", "stage"], found["block", "stage.0"]
    assert stage.layers == NAMES[1:4]
    assert (stage.before, stage.after) == (144 + 144 + 6, 14 + 14 + 6)
    assert stage.gain == 294 / 34
    assert block.relative_error == pytest.approx(math.sqrt((0.3**2 + 0.4**2) / 2))
    # The layer that stays dense has no error, and a weight of 6 of 294.
    assert stage.relative_error == pytest.approx(math.sqrt(144 * (0.3**2 + 0.4**2) / 294))
    # Before the last stage, block and convolution lie all the layers before them.
    assert found["stage", "tail"].starts == (6 + 294, 6 + 34)
    assert found["block", "stage.1"].starts == (6 + 288, 6 + 28)
    assert found["convolution", "tail.b"].starts == (6 + 294, 6 + 34)


@pytest.mark.parametrize("colour", ["gain", "error"])
def test_parts_figure_draws_every_part_before_and_after(made, colour):
    found = parts(made)
    figure = parts_figure(found, "made", colour)
    before, after = figure.data
    assert list(before.x) == [part.before for part in found]
    assert list(after.x) == [part.after for part in found]
    assert list(before.base) == [part.starts[0] for part in found]
    assert list(after.base) == [part.starts[1] for part in found]
    assert (before.yaxis, after.yaxis) == ("y", "y2")
    assert [name for name in after.customdata if name is not None] == list(NAMES)
    expected = [math.log10(p.gain) if colour == "gain" else p.relative_error for p in found]
    assert list(before.marker.color) == list(after.marker.color) == expected
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, max(expected))
    assert "3 layers" in before.hovertext[0]
    assert "8.65 ×" in before.hovertext[0]
    assert "scalars" in figure.layout.xaxis.title.text


def test_a_plan_without_a_ring_is_drawn_too(made):
    none = made.model_copy(update={"layers": (dense("conv1"), dense("a.b"))})
    axis = parts_figure(parts(none), "made", "error").layout.coloraxis
    assert axis.cmin < axis.cmax


def test_parts_table_says_the_same_in_numbers(made):
    table = parts_table(parts(made)).set_index("part")
    assert table.loc["stage", "before (scalars)"] == 294
    assert table.loc["stage", "after (scalars)"] == 34
    assert table.loc["tail.b", "relative error"] == 0.2
    assert table.loc["stage", "convolutions"] == 3
