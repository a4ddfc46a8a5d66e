"""The table behind a figure holds what the figure draws."""

import pytest
from plotly import graph_objects as go

from rsdtr.charts.accuracy import Stage, stages_figure
from rsdtr.charts.latency import LatencyPoint, latency_figure
from rsdtr.charts.plan import FrontPoint, RatioPoint, fronts_figure, ratios_figure
from rsdtr.charts.recovery import training_figure
from rsdtr.charts.style import points_table
from rsdtr.measuring.accuracy import Accuracy


def test_both_fronts_and_the_present_plan():
    figure = fronts_figure(
        [FrontPoint("ε_p 0.4", 2.0, 0.5, eps=0.4)],
        [FrontPoint("PCR 2", 2.0, 0.3), FrontPoint("PCR 4", 4.0, 0.9)],
        FrontPoint("now", 3.0, 0.8),
        reached="PCR, parameters original / compressed (×, log)",
        damage="Damage: Σ e² · √entries (log)",
    )
    table = points_table(figure)
    assert list(table) == [
        "series", "plan", "PCR, parameters original / compressed (×)", "Damage: Σ e² · √entries",
    ]  # fmt: skip
    assert table.iloc[0].tolist() == ["one εₚ for all", "εₚ 0.4", 2.0, 0.5]
    assert table.iloc[2].tolist() == ["one for each layer", "PCR 4", 4.0, 0.9]
    assert table["series"].tolist()[-1] == "now"
    assert table["plan"].isna().tolist() == [False, False, False, True]


def test_a_line_that_has_gaps_has_fewer_rows():
    points = [RatioPoint(0.2, 1.1, 0.9), RatioPoint(0.4, 1.8, 1.4, 1.2)]
    table = points_table(ratios_figure(points, None))
    assert table["series"].value_counts().to_dict() == {
        "PCR (parameters)": 2, "FCR (FLOPs)": 2, "time (measured)": 1,
    }  # fmt: skip
    assert list(table)[1] == "Prescribed relative error εₚ"


def test_intervals_are_columns_and_names_are_without_tags():
    stages = [Stage("dense", Accuracy(90.0, (88.0, 91.0), 500))]
    table = points_table(stages_figure(stages))
    assert table.iloc[0].to_dict() == {
        "series": "",
        "Top-1 accuracy on test images (%)": 90,
        "Top-1 accuracy on test images (%), from": 88,
        "Top-1 accuracy on test images (%), to": 91,
        "name": "dense",
    }


def test_every_panel_has_its_columns():
    table = points_table(training_figure([2.0, 1.0], [0.1, 0.2], []))
    assert list(table) == ["series", "Optimiser step", "Loss", "Learning rate"]
    assert table["Learning rate"].tolist()[2:] == pytest.approx([0.1, 0.2])
    assert table["Loss"].isna().tolist() == [False, False, True, True]


def test_times_name_their_plans():
    point = LatencyPoint("ε_p 0.6", 2.5, 2.0, 0.7)
    table = points_table(latency_figure([("batch 1", [point])], None, [point]))
    assert table["plan"].dropna().tolist() == ["εₚ 0.6", "εₚ 0.6"]
    assert table["series"].tolist() == ["promised by MACs", "batch 1", "your browser"]


def test_a_heat_map_has_no_points():
    assert points_table(go.Figure(go.Heatmap(x=["a"], y=["b"], z=[[1]]))).empty
