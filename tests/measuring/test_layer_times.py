"""The table of measured forms: what it chooses, where it is kept, what it refuses."""

import json

import pytest
import torch
from pydantic import ValidationError

from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.errors import RsdtrError
from rsdtr.measuring import layer_times
from rsdtr.measuring.layer_times import (
    DeviceProfile,
    FormTime,
    LayerCase,
    LayerTimes,
    measure,
    measured_profile,
    own_path,
)
from rsdtr.ring.forms import FORMS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def case(**changes):
    fields = {
        "shape": (6, 4, 3, 2),
        "ranks": (1, 2, 3, 2),
        "stride": (2, 1),
        "padding": (1, 0),
        "input_size": (9, 8),
        "batch": 2,
        "threads": 1,
    }
    return LayerCase(**(fields | changes))


def times(of=None, peaks=None, **milliseconds):
    """Times made up: 10 ms, but for what is given (o_ihw for O|IHW)."""
    given = {name.upper().replace("_", "|") if "_" in name else name: value
             for name, value in milliseconds.items()}  # fmt: skip
    peaks = peaks or {}
    return LayerTimes(
        case=of or case(),
        forms=tuple(
            FormTime(
                form=form,
                median_ms=given.get(form, 10.0),
                iqr_ms=0.1,
                best_ms=given.get(form, 10.0),
                peak_bytes=peaks.get(form),
            )
            for form in FORMS
        ),
    )


def test_the_fastest_ring_that_is_worth_it_and_else_dense():
    assert times(O_IHW=4.0, dense=6.0).fastest.form == "O|IHW"
    assert times(IH_WO=5.0, dense=5.0).fastest.form == "dense"
    assert times(pipeline=5.95, dense=6.0).fastest.form == "dense"  # nearer than timings tell
    assert times(pipeline=5.95, dense=6.0).fastest_ring.form == "pipeline"
    assert times(dense=11.0).fastest.form == "pipeline"  # the first of equals


def test_memory_decides_between_equally_fast_training_steps():
    training = case(mode="training")
    peaks = {"pipeline": 900, "O|IHW": 300, "I|HWO": 200, "IH|WO": 400, "dense": 500}
    found = times(training, peaks, pipeline=5.0, O_IHW=5.1, I_HWO=5.9, IH_WO=5.05)
    assert found.fastest.form == "O|IHW"
    assert times(case(), peaks, pipeline=5.0, O_IHW=5.1).fastest.form == "pipeline"


def test_a_case_builds_its_layer():
    layer = case(padding="same", stride=(1, 1), dilation=(2, 1), padding_mode="reflect",
                 mode="training").layer("I|HWO")  # fmt: skip
    assert isinstance(layer, TRConv2d)
    assert (layer.form, layer.ranks, layer.padding) == ("I|HWO", (1, 2, 3, 2), "same")
    assert (layer.dilation, layer.padding_mode, layer.training) == ((2, 1), "reflect", True)
    assert layer.bias is None
    assert layer(torch.randn(1, 4, 9, 8)).shape == (1, 6, 9, 8)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_every_form_is_measured(mode):
    before = torch.get_num_threads(), torch.get_rng_state()
    (found,) = measure([case(mode=mode)], runs=3)
    assert [item.form for item in found.forms] == list(FORMS)
    for item in found.forms:
        assert 0 < item.best_ms <= item.median_ms
        assert item.peak_bytes is None if mode == "inference" else item.peak_bytes > 0
    assert found.case == case(mode=mode)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_the_peak_of_a_training_step_grows_with_the_activations():
    (found,) = measure([case(mode="training", ranks=(1, 6, 9, 2), input_size=(40, 40))], runs=3)
    # 54 channels between the 1×1 and the 3×2 convolution, against 6 between the other way round.
    assert found.of("I|HWO").peak_bytes > 2 * found.of("O|IHW").peak_bytes


def test_measured_once_saved_and_found_again(monkeypatch, cache):
    measured = []

    def made_up(cases, **_):
        for one in cases:
            measured.append(one)
            yield times(one, O_IHW=1.0)

    monkeypatch.setattr(layer_times, "measure", made_up)
    seen = []
    cases = [case(), case(batch=3), case()]
    found = measured_profile(cases, progress=lambda done, total: seen.append((done, total)))
    assert measured == [case(), case(batch=3)]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert [path.name for path in (cache / "device").iterdir()] == [own_path().name]
    again = measured_profile(cases)
    assert len(measured) == 2
    assert again == found == DeviceProfile.own()
    assert again.times(case()).fastest.form == "O|IHW"
    assert again.times(case(batch=4)) is None
    assert again.missing([case(batch=4), case(), case(batch=4)]) == (case(batch=4),)


def test_stopped_half_way_what_was_measured_is_kept(monkeypatch):
    monkeypatch.setattr(layer_times, "measure", lambda cases: (times(one) for one in cases))
    stops = iter([False, True])
    measured_profile([case(), case(batch=3)], should_stop=lambda: next(stops))
    assert DeviceProfile.own().missing([case(), case(batch=3)]) == (case(batch=3),)


def test_each_case_is_kept_as_soon_as_it_is_measured(monkeypatch):
    monkeypatch.setattr(layer_times, "measure", lambda cases: (times(one) for one in cases))
    known = []
    measured_profile(
        [case(), case(batch=3)], progress=lambda *_: known.append(len(DeviceProfile.own().layers))
    )
    assert known == [0, 1, 2]


def test_what_another_process_measured_meanwhile_is_not_lost(monkeypatch):
    def meanwhile(cases, **_):
        DeviceProfile.own().extended([times(case(batch=9))]).save()
        return (times(one) for one in cases)

    monkeypatch.setattr(layer_times, "measure", meanwhile)
    measured_profile([case()])
    assert DeviceProfile.own().missing([case(), case(batch=9)]) == ()


def test_another_machine_s_profile_is_read_from_a_file_and_not_written(tmp_path, monkeypatch):
    there = DeviceProfile(machine="a phone").extended([times(dense=1.0)])
    path = there.save(tmp_path / "phone.json")
    assert [file.name for file in tmp_path.iterdir()] == ["phone.json"]
    assert DeviceProfile.load(path) == there
    monkeypatch.setattr(layer_times, "measure", lambda cases: (times(one) for one in cases))
    more = measured_profile([case(batch=3)], there)
    assert (len(more.layers), more.machine) == (2, "a phone")
    assert not own_path().exists()


def test_newer_times_replace_older_ones():
    found = DeviceProfile(machine="here").extended([times(dense=1.0), times(case(batch=3))])
    newer = found.extended([times(dense=2.0)])
    assert len(newer.layers) == 2
    assert newer.times(case()).of("dense").best_ms == 2.0


@pytest.mark.parametrize("content", ["", "{", '{"machine": 1}', '{"machine": "x", "more": 1}'])
def test_a_damaged_file_is_ignored_and_made_anew(content):
    own_path().parent.mkdir(parents=True)
    own_path().write_text(content)
    assert DeviceProfile.own().layers == ()
    DeviceProfile.own().extended([times()]).save()
    assert len(DeviceProfile.own().layers) == 1


def test_a_file_of_another_machine_in_this_one_s_place_is_ignored():
    DeviceProfile(machine="elsewhere", layers=(times(),)).save(own_path())
    assert DeviceProfile.own().layers == ()


def test_files_that_are_no_profile_and_places_that_cannot_be_written(tmp_path):
    with pytest.raises(RsdtrError, match=r"nothing\.json cannot be read \(No such file"):
        DeviceProfile.load(tmp_path / "nothing.json")
    text = json.loads(DeviceProfile(machine="x", layers=(times(),)).model_dump_json())
    text["layers"][0]["forms"].pop()
    (tmp_path / "half.json").write_text(json.dumps(text))
    with pytest.raises(RsdtrError, match=r"is no device profile: layers\.0: .* one time for each"):
        DeviceProfile.load(tmp_path / "half.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(RsdtrError, match="could not be written"):
        DeviceProfile(machine="x").save(tmp_path / "file" / "profile.json")


def test_a_case_that_no_layer_can_be():
    with pytest.raises(ValidationError, match="at least 1"):
        case(ranks=(1, 0, 1, 1))


def test_the_oldest_times_are_dropped_and_measuring_again_makes_new(monkeypatch):
    monkeypatch.setattr(layer_times, "KEPT_CASES", 2)
    found = DeviceProfile(machine="here").extended([times(case(batch=n)) for n in (1, 2)])
    found = found.extended([times(case(batch=1))]).extended([times(case(batch=3))])
    assert [layer.case.batch for layer in found.layers] == [1, 3]
