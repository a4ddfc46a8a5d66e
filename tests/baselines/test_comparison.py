"""Cells on disk, the front, the table, the figure, the command and the job."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError

from rsdtr.baselines import comparison
from rsdtr.baselines.catalogue import (
    AFTER,
    INT8,
    Subject,
    method,
    methods_for,
    title_of,
)
from rsdtr.baselines.comparison import (
    Cell,
    Comparison,
    _recovered,
    cell_path,
    front,
    run,
)
from rsdtr.baselines.conv_chain import FactoredConv2d
from rsdtr.charts.comparison import AXES, comparison_figure, pair_figure
from rsdtr.charts.tables import cells_table, pair_table
from rsdtr.commands.cli import cli
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.data.datasets import load_data
from rsdtr.errors import RsdtrError, UnknownName
from rsdtr.jobs import job_queue
from rsdtr.jobs.kinds.comparison import KIND, cells_folder, queue_comparison, report
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from tests.support import job_kinds
from tests.support.waiting import ended

pytestmark = pytest.mark.process

DIGITS = "digits_resnet20"
ASKED = Comparison(
    model=DIGITS, methods=("tt", "int8", "prune-l2"), pcrs=(3.0, 200.0), recalibrate=60, limit=50
)


@pytest.fixture(scope="module")
def subject() -> Subject:
    spec = model_spec(DIGITS)
    return Subject(load_model(DIGITS), spec, load_data(None, spec))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def cells(subject, folder) -> tuple[Cell, ...]:
    return tuple(run(ASKED, subject, folder))


def test_a_cell_for_every_pair_and_one_for_int8(cells):
    assert [(cell.method, cell.asked) for cell in cells] == [
        ("tt", 3.0), ("int8", 1.0), ("prune-l2", 3.0), ("tt", 200.0), ("prune-l2", 200.0),
    ]  # fmt: skip


def test_what_a_cell_holds(cells, subject):
    train, int8, pruned, *_ = cells
    assert 3.0 <= train.pcr < 3.1
    assert len(train.relative_errors) == 18  # every convolution but the first
    assert all(0 < error < 1 for _, error in train.relative_errors)
    assert [each.layer for each in train.cores] == [name for name, _ in train.relative_errors]
    kept = sum(x.kernel.numel() for x in subject.profile.layers)
    replaced = sum(subject.profile.layer(each.layer).kernel.numel() for each in train.cores)
    stored = kept - replaced + sum(each.storage for each in train.cores)
    assert subject.profile.params / (subject.profile.params - kept + stored) == train.pcr
    assert {each.ranks for each in pruned.cores} == {()}
    assert "layer1.0.conv1" in {each.layer for each in pruned.cores}
    assert int8.cores == ()
    assert train.n == 50
    assert train.interval[0] <= train.accuracy <= train.interval[1]
    assert train.accuracy > 90
    assert train.bytes < sum(4 * p.numel() for p in subject.model.parameters()) / 2
    assert train.latency_ratio > 0
    assert int8.pcr == 1.0
    assert int8.bytes < 0.4 * sum(4 * p.numel() for p in subject.model.parameters())
    assert int8.accuracy > 90
    assert pruned.accuracy > 80


def test_a_failing_cell_says_why_and_stops_no_other(cells):
    failed = [cell for cell in cells if cell.failed is not None]
    assert [cell.method for cell in failed] == ["tt", "prune-l2"]
    assert all("200" in str(cell.failed) and cell.accuracy is None for cell in failed)


def test_what_is_known_is_not_computed_again(cells, subject, folder, monkeypatch):
    computed = []

    def note(*arguments: object) -> Cell:
        computed.append(arguments[3:])
        return Cell(method=str(arguments[3]), asked=float(arguments[4]), failed="again")

    monkeypatch.setattr(comparison, "_computed", note)
    again = tuple(run(ASKED, subject, folder))
    assert computed == [("tt", 200.0), ("prune-l2", 200.0)]  # only what failed
    assert again[:3] == cells[:3]
    other = ASKED.model_copy(update={"recalibrate": 61})
    assert cell_path(other, subject, folder, "tt", 3.0) != cell_path(
        ASKED, subject, folder, "tt", 3.0
    )


def test_it_stops_between_cells(subject, tmp_path):
    assert list(run(ASKED, subject, tmp_path, should_stop=lambda: True)) == []


def test_what_cannot_be_written_is_a_sentence(subject, tmp_path, monkeypatch):
    (tmp_path / "cells").write_text("a file")
    monkeypatch.setattr(comparison, "_computed", lambda *_: Cell(method="tt", asked=3.0))
    with pytest.raises(RsdtrError, match="could not be written"):
        list(run(ASKED, subject, tmp_path))


def test_requests_that_make_no_sense():
    with pytest.raises(ValidationError, match="makes nothing smaller"):
        Comparison(model=DIGITS, methods=("tt",), pcrs=(1.0,))
    with pytest.raises(UnknownName, match="no method 'magic'"):
        queue_comparison(Comparison(model=DIGITS, methods=("magic",), pcrs=(2.0,)), "0")


def made_up(method: str, pcr: float, accuracy: float, latency: float = 1.0) -> Cell:
    return Cell(
        method=method, asked=pcr, pcr=pcr, fcr=pcr, latency_ratio=latency, accuracy=accuracy,
        interval=(accuracy - 1, accuracy + 1), n=100, bytes=10, seconds=1.0,
    )  # fmt: skip


def test_the_front_by_hand():
    one, two, three = made_up("tt", 2, 90), made_up("cp", 3, 90), made_up("ht", 4, 80)
    four = made_up("trn", 3.5, 79)
    lost = Cell(method="prune-l2", asked=3, failed="no")
    cells = (one, two, three, four, lost)
    assert front(cells, lambda cell: cell.pcr and -cell.pcr) == (two, three)
    # All equally fast: the most accurate, both of them.
    assert front(cells, lambda cell: cell.latency_ratio) == (one, two)


def test_the_figure_as_data():
    cells = (made_up("tt", 2, 90, 0.9), made_up("tt", 4, 80, 0.7), made_up("cp", 4, 85, 0.8))
    figure = comparison_figure((*cells, Cell(method="ht", asked=2, failed="no")), "a network")
    assert len(figure.data) == len(AXES) * 3  # a front and two methods in each
    best = figure.data[0]
    assert (best.name, list(best.x), list(best.y)) == ("Pareto front", [2, 4], [90, 85])
    assert [list(row) for row in figure.data[1].customdata] == [["tt", 2], ["tt", 4]]
    named = comparison_figure(cells, "a network", {"tt": "tensor train", "cp": "CP"}.__getitem__)
    assert [trace.name for trace in named.data[:3]] == ["Pareto front", "tensor train", "CP"]
    assert [list(row) for row in named.data[1].customdata] == [["tt", 2], ["tt", 4]]
    titles = [figure.layout[f"xaxis{k}"].title.text for k in ("", 2, 3)]
    assert titles == [title for title, _, _ in AXES]


def test_no_two_methods_of_a_figure_look_alike():
    names = [f"{name}{end}" for name in methods_for(DIGITS) for end in ("", AFTER)]
    cells = [made_up(name, 2, 90, 0.9) for name in (*names, INT8)]
    figure = comparison_figure(cells, "a network", title_of)
    shown = figure.data[1 : len(cells) + 1]
    assert len({trace.marker.symbol for trace in shown}) == len(cells)  # in any sight of colours
    symbols = {trace.customdata[0][0]: trace.marker.symbol for trace in shown}
    assert all(symbols[f"{n}{AFTER}"] == f"{symbols[n]}-open" for n in methods_for(DIGITS))
    titles = [trace.name for trace in shown]
    assert len(set(titles)) == len(cells)
    assert "CP, int8" in titles  # not what it is made of
    assert not any("ε_p" in title for title in titles)


def test_two_cells_layer_by_layer(cells, subject):
    train, int8, *_ = cells
    table = pair_table((train, int8), subject.profile)
    first, second = table.iloc[0], table.iloc[1]
    assert (first["layer"], first["storage A"], first["ranks A"]) == ("conv1", 144, "dense")
    cores = train.cores[0]
    assert (second["storage A"], second["ranks A"]) == (
        cores.storage, " ".join(map(str, cores.ranks)),
    )  # fmt: skip
    assert second["error A"] == train.relative_errors[0][1]
    assert table["storage B"].tolist() == table["dense"].tolist()
    assert table["error B"].isna().all()
    before = pair_table((train.model_copy(update={"cores": ()}), int8), subject.profile)
    assert before["storage A"].isna().sum() == 18
    assert (before["ranks A"] == "dense").sum() == 1
    figure = pair_figure(table, ("tt at PCR 3", "int8 at PCR 1"))
    assert [bar.name for bar in figure.data] == [
        "as trained", "A: tt at PCR 3", "B: int8 at PCR 1", "A: tt at PCR 3", "B: int8 at PCR 1",
    ]  # fmt: skip
    assert list(figure.data[1].y) == table["storage A"].tolist()


@pytest.mark.parametrize("name", ["tt", "rsdtr-tight"])
def test_fine_tuning_keeps_the_structure(subject, name):
    few = dataclasses.replace(subject.data, train=subject.data.train.subset(256))
    made = method(name).make(subject, 3.0)
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    asked = ASKED.model_copy(update={"epochs": 1, "recalibrate": None})
    tuned = _recovered(asked, Subject(subject.model, subject.spec, few), made)
    after = tuned.state_dict()
    assert [(k, v.shape) for k, v in before.items()] == [(k, v.shape) for k, v in after.items()]
    assert any("cores" in k for k in after)
    assert all(not torch.equal(before[k], after[k]) for k in after if "cores" in k)
    kind = FactoredConv2d if name == "tt" else TRConv2d
    assert isinstance(tuned.get_submodule("layer2.1.conv1"), kind)


def test_the_table():
    table = cells_table((made_up("tt", 2, 90), Cell(method="ht", asked=2, failed="why")))
    assert table["accuracy (%)"].iloc[0] == 90
    assert table["failed"].iloc[1] == "why"
    assert table["bytes"].isna().tolist() == [False, True]


def test_on_the_command_line(tmp_path):
    def asked(*more: str):
        command = ["compare", DIGITS, "--limit", "40", "--out", str(tmp_path / "out"), *more]
        return CliRunner().invoke(cli, command)

    result = asked("--methods", "spatial-svd,rsdtr-paper", "--pcr", "3", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [cell["method"] for cell in found["cells"]] == ["spatial-svd", "rsdtr-paper"]
    assert found["machine"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found
    assert (tmp_path / "out" / "compare.html").stat().st_size > 10_000
    assert (tmp_path / "out" / "compare.csv").read_text().startswith("method,asked PCR,PCR")
    table = asked("--methods", "spatial-svd,rsdtr-paper", "--pcr", "3")
    assert "spatial-svd" in table.stdout
    for wrong, said in (
        (("--pcr", "three"), "--pcr is 'three'"),
        (("--pcr", "0.5"), "makes nothing smaller"),
        (("--methods", "magic"), "no method 'magic'"),
        (("--methods", ","), "methods"),
    ):
        refused = asked(*wrong)
        assert refused.exit_code == 2
        assert said in refused.output


@pytest.fixture
def cache(own_jobs, monkeypatch) -> Path:
    monkeypatch.setattr(job_queue, "command", job_kinds.command)
    return own_jobs


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_as_a_job(subject, cache):
    asked = Comparison(model=DIGITS, methods=("tt", "ht"), pcrs=(3.0,), limit=40)
    sha = subject.profile.weights_sha256
    job = ended(queue_comparison(asked, sha))
    assert (job.kind, job.state) == (KIND, "done"), job.message
    assert [cell.method for cell in report(job)] == ["tt", "ht"]
    assert len(list((cells_folder() / "cells").glob("*.json"))) == 2
    assert queue_comparison(asked, sha).id == job.id
    stale = ended(queue_comparison(replace_pcr(asked), "0" * 64))
    assert stale.state == "failed"
    assert "the weights have changed" in stale.message


def replace_pcr(asked: Comparison) -> Comparison:
    return asked.model_copy(update={"pcrs": (4.0,)})
