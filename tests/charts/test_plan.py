"""Figures are tested as data: what they draw is what the plan and the measurements say."""

import math
from dataclasses import replace

import pytest
from plotly.colors import sample_colorscale

from rsdtr.charts.accuracy import Stage, stages_figure
from rsdtr.charts.layer import candidates_figure, ring_figure, spectra, spectra_figure
from rsdtr.charts.plan import RatioPoint, layers_figure, ratios_figure
from rsdtr.charts.tables import candidates_table, layers_table
from rsdtr.measuring.accuracy import Accuracy
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.search.paper_rule import smallest
from tests.support.networks import varied, varied_spec


@pytest.fixture(scope="module")
def small():
    return profile(varied(), varied_spec())


@pytest.fixture(scope="module")
def made(small):
    return plan(small, 0.4)


def numbers(values):
    """The values of a trace as a flat list, gaps left out."""
    flat = [v for row in values for v in (row if hasattr(row, "__len__") else [row])]
    return [float(v) for v in flat if v is not None and not math.isnan(float(v))]


def test_layers_figure_draws_every_layer_before_and_after(made):
    figure = layers_figure(made)
    before, rings, dense = figure.data[:3]
    assert list(before.x) == [layer.name for layer in made.layers]
    assert list(before.y) == [math.prod(layer.shape) for layer in made.layers]
    assert list(rings.x) == [layer.name for layer in made.layers if layer.kept_dense is None]
    assert list(rings.y) == [layer.storage for layer in made.layers if layer.kept_dense is None]
    assert set(dense.x) == {layer.name for layer in made.layers if layer.kept_dense is not None}
    assert "scalars" in figure.layout.yaxis.title.text


def test_ratios_figure_marks_the_present_point():
    points = [RatioPoint(0.2, 1.1, 0.9), RatioPoint(0.6, 2.5, 2.1)]
    figure = ratios_figure(points, points[1])
    curves = {trace.name: list(trace.y) for trace in figure.data if trace.name}
    assert [1.1, 2.5] in curves.values()
    assert [0.9, 2.1] in curves.values()
    marked = [numbers(trace.y) for trace in figure.data if len(trace.x) == 1]
    assert [2.5] in marked
    assert [2.1] in marked


def test_ratios_figure_draws_only_the_times_that_were_measured():
    points = [RatioPoint(0.2, 1.1, 0.9), RatioPoint(0.4, 1.8, 1.4, 1.2), RatioPoint(0.6, 2.5, 2.1)]
    lines = {trace.name: trace for trace in ratios_figure(points, points[1]).data}
    time = lines["time (measured)"]
    assert (list(time.x), list(time.y)) == ([0.4], [1.2])
    assert list(lines["time (measured) now"].y) == [1.2]
    bare = {trace.name for trace in ratios_figure(points[::2], points[2]).data}
    assert not any("time" in name for name in bare)


def test_stages_figure_shows_each_accuracy():
    stages = [
        Stage("dense", Accuracy(90.0, (88.0, 92.0), 500)),
        Stage("compressed", Accuracy(50.0, (45.0, 55.0), 500)),
    ]
    shown = [x for trace in stages_figure(stages).data for x in numbers(trace.x)]
    assert {90.0, 50.0} <= set(shown)


def test_candidates_figure_has_a_cell_for_each_candidate(small):
    layer = small.layer("wide")
    found = layer.spectra.candidates(0.4)
    figure = candidates_figure(found, smallest(found), layer.kernel.numel())
    (heat,) = (trace for trace in figure.data if trace.type == "heatmap")
    # The colours are of log storage; as many cells are filled as there are candidates.
    assert len(numbers(heat.z)) == len(found)


def test_every_number_in_a_cell_can_be_read(small):
    found = small.layer("wide").spectra.candidates(0.4)[:9]
    found = [replace(ring, storage=1000 + 250 * k) for k, ring in enumerate(found)]
    figure = candidates_figure(found, found[0], 4800)
    low, high = math.log10(1000), math.log10(found[-1].storage)
    for ring, note in zip(found, figure.layout.annotations, strict=True):
        share = (math.log10(ring.storage) - low) / (high - low)
        (cell,) = sample_colorscale("Viridis", share, colortype="tuple")
        assert f"{ring.storage:,}" in note.text
        assert contrast(cell, {"black": 0.0, "white": 1.0}[note.font.color]) >= 4.5
    assert {note.font.color for note in figure.layout.annotations} == {"black", "white"}


def contrast(colour, other):
    """Of a colour (red, green, blue, 0 to 1) with black or white, as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    light = sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return (max(light, other) + 0.05) / (min(light, other) + 0.05)


def test_a_cell_is_clicked_by_its_shift_and_divisor(small):
    found = small.layer("wide").spectra.candidates(0.4)
    figure = candidates_figure(found, smallest(found), 4800)
    (markers,) = (trace for trace in figure.data if trace.type == "scatter")
    assert [list(cell) for cell in markers.customdata] == [[r.shift, r.r0] for r in found]
    assert markers.marker.opacity == 0


def test_a_scale_from_4699_to_4704_has_five_different_ticks(small):
    found = small.layer("wide").spectra.candidates(0.4)[:2]
    near = [
        replace(ring, storage=storage) for ring, storage in zip(found, (4699, 4704), strict=True)
    ]
    scale = candidates_figure(near, near[0], 36864).data[0].colorbar
    assert scale.ticktext == ("4,699", "4,700", "4,701", "4,703", "4,704")


def test_spectra_figure_and_ring_figure_follow_their_data(small):
    layer = small.layer("wide")
    found = spectra(layer.spectra)
    assert [spectrum.shift for spectrum in found] == [0, 1, 2, 3]
    share = 0.4 / math.sqrt(3)
    assert f"{share:.3f}" in str(spectra_figure(found, 0.4).to_dict())
    drawn = str(ring_figure(layer.shape, (2, 3, 4, 5), 1234).to_dict())
    assert "1,234" in drawn
    assert all(f"{n:,}" in drawn for n in (2 * 20 * 3, 3 * 16 * 4, 4 * 3 * 5, 5 * 5 * 2))


def test_tables_hold_the_plan_and_the_candidates(small, made):
    table = layers_table(made)
    assert len(table) == len(made.layers)
    assert "wide" in set(table.iloc[:, 0])
    found = small.layer("wide").spectra.candidates(0.4)
    listed = candidates_table(found, smallest(found), 20 * 16 * 15)
    assert len(listed) == len(found)
    assert sorted(c.storage for c in found) == sorted(
        next(listed[c].tolist() for c in listed.columns if "storage" in c)
    )
