"""Weights that a reader brings: what they become, what is refused, and what nobody is shown."""

import io
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from streamlit.testing.v1 import AppTest

from rsdtr.jobs import job_queue
from rsdtr.jobs.job import read_spec
from rsdtr.models.model_loading import load_model
from rsdtr.models.zoo import model_spec
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from rsdtr.system import cache_folder
from rsdtr.ui.plan import uploads
from rsdtr.ui.shared import session
from tests.support.hostile import Malicious
from tests.support.pages import DIGITS, PAGES, app, metrics_of, start
from tests.support.waiting import until


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return model_spec(DIGITS).build().state_dict()


@pytest.fixture(scope="module")
def expected(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.safetensors"
    save_file(trained, path)
    return plan(profile(load_model(DIGITS, path), model_spec(DIGITS)), 0.6)


def give(test: AppTest, content: bytes, name: str = "mine.safetensors") -> AppTest:
    test.file_uploader[0].set_value((name, content, "application/octet-stream")).run()
    assert not test.exception
    return test


def shown(test: AppTest) -> str:
    """All that the page says, and all that it offers to copy."""
    elements = [*test.markdown, *test.error, *test.info, *test.warning, *test.code, *test.caption]
    return "\n".join(element.value for element in elements)


def test_without_a_file_the_page_asks_for_one():
    test = app(weights="own")
    assert not test.error
    assert "Give a file with weights of" in test.info[0].value
    assert not test.metric


def test_a_reader_sees_at_once_what_becomes_of_an_own_network(trained, expected):
    test = give(app(weights="own"), save(trained))
    assert metrics_of(test)["PCR"].startswith(f"{expected.pcr:.2f}")
    dense = [layer for layer in expected.layers if layer.kept_dense is not None]
    rings = len(expected.layers) - len(dense)
    assert "**mine.safetensors** fits digits\\_resnet20" in shown(test)
    said = next(text.value for text in test.markdown if "become rings" in text.value)
    assert f"{rings} of {len(expected.layers)} convolutions become rings" in said
    assert "conv1" in said
    assert uploads.plain(dense[0].kept_dense) in said


def test_a_file_of_another_number_of_classes_makes_the_model_of_that_number(tmp_path):
    name = f"{DIGITS}@7"
    torch.manual_seed(4)
    state = model_spec(name).build().state_dict()
    save_file(state, tmp_path / "seven.safetensors")
    dense = load_model(name, tmp_path / "seven.safetensors")
    seven = plan(profile(dense, model_spec(name)), 0.6)
    assert seven.params.original == sum(p.numel() for p in dense.parameters())
    test = give(app(weights="own"), save(state), "seven.safetensors")
    assert not test.error
    assert metrics_of(test)["PCR"].startswith(f"{seven.pcr:.2f}")
    assert name in shown(test)


def test_a_pth_of_torch_is_taken_too(trained, expected):
    file = io.BytesIO()
    torch.save(trained, file)
    test = give(app(weights="own"), file.getvalue(), "mine.PTH")
    assert metrics_of(test)["PCR"].startswith(f"{expected.pcr:.2f}")


def test_the_file_is_kept_on_every_page_and_its_place_is_shown_on_none(trained):
    test = give(app(weights="own"), save(trained))
    assert "--weights mine.safetensors" in shown(test)
    for path in (*PAGES, "pages/learn.py"):
        test.switch_page(path).run()
        assert not test.exception
        assert not test.error
        assert not any("Give a file" in info.value for info in test.info)
        assert test.query_params[session.WEIGHTS] == "own"
        assert str(cache_folder.cache_folder()) not in shown(test)
    assert str(cache_folder.cache_folder()) not in shown(test.switch_page("pages/explore.py").run())


def test_another_model_asks_for_its_own_file(trained):
    test = give(app(weights="own"), save(trained))
    test.selectbox(key=session.MODEL).set_value("cifar10_resnet20").run()
    assert "Give a file with weights of cifar10" in test.info[0].value
    test.selectbox(key=session.MODEL).set_value(DIGITS).run()
    assert metrics_of(test)["PCR"]


def test_a_file_that_is_taken_away_is_forgotten(trained):
    test = give(app(weights="own"), save(trained))
    test.file_uploader[0].clear().run()
    assert "Give a file" in test.info[0].value


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (b"", "mine.safetensors", "mine.safetensors "),
        (b"\xff" * 64, "mine.safetensors", "mine.safetensors "),
        (save({"conv1.weight": torch.ones(3)}), "a b.safetensors", "a b.safetensors does not fit"),
        (b"not a pickle", "mine.pth", "mine.pth cannot be read"),
    ],
    ids=("empty", "broken", "another network's", "no pickle"),
)
def test_what_is_no_such_network_is_said_in_one_sentence(content, name, sentence):
    test = give(app(weights="own"), content, name)
    assert test.error[0].value.replace("\\", "").startswith(sentence)
    assert str(cache_folder.cache_folder()) not in shown(test).replace("\\", "")
    assert not test.metric


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_a_job_works_on_the_file(trained):
    test = give(app(weights="own"), save(trained))
    test.switch_page("pages/recover.py").run()
    job = start(test, 1)
    until(lambda: job_queue.find(job.id).ended)
    assert job_queue.find(job.id).state == "done"
    kept = Path(read_spec(job.folder).content["weights"])
    assert kept.name == "mine.safetensors"
    assert not any(str(cache_folder.cache_folder()) in line for line in (job.title, shown(test)))


def test_a_file_that_would_run_code_runs_none(tmp_path):
    file = io.BytesIO()
    torch.save(Malicious(tmp_path / "written"), file)
    test = give(app(weights="own"), file.getvalue(), "mine.pth")
    assert "cannot be read" in test.error[0].value
    assert not (tmp_path / "written").exists()


def test_a_name_leads_to_no_other_folder(trained):
    test = give(app(weights="own"), save(trained), "../../../-rf /etc/x y.safetensors")
    assert metrics_of(test)["PCR"]
    kept = list(cache_folder.cache_folder().parent.rglob("*x y*"))
    assert [path.name for path in kept] == ["x y.safetensors"]
    assert kept[0].is_relative_to(cache_folder.cache_folder() / "uploads")
    assert kept[0].stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("given", "shown_as"),
    [
        ("model (1)+aug=2.PTH", "model (1)+aug=2.PTH"),
        (".safetensors", "weights.safetensors"),
        ("\U00020000" * 90 + ".safetensors", "\U00020000" * 50 + ".safetensors"),
        ('a:b"c.pth', "a_b_c.pth"),
        ("C:\\models\\r.pt", "r.pt"),
    ],
    ids=("usual", "no stem", "long", "characters", "windows"),
)
def test_a_name_stays_as_far_as_file_systems_take_it(given, shown_as):
    assert uploads._file_name(given) == shown_as


def test_what_was_asked_for_outlasts_a_page_without_weights(trained):
    """Streamlit's page links bring no address along; a page that ends early has fewer widgets."""
    test = app(eps="0.3", own="layer1.0.conv1:0.4", rule="tight")
    test.button_group(key=session.WEIGHTS).set_value("own").run()
    test.query_params.clear()
    test.switch_page("pages/export.py").run()
    give(test, b"\xff" * 64)
    test.query_params.clear()
    test.switch_page("pages/layers.py").run()
    give(test, save(trained))
    assert not test.error
    assert test.slider(key=session.EPS).value == 0.3
    assert test.button_group(key=session.RULE).value == "tight"
    asked = {name: test.query_params[name] for name in (session.EPS, session.RULE, session.OWN)}
    assert asked == {"eps": "0.3", "rule": "tight", "own": "layer1.0.conv1:0.4"}


def test_a_link_with_a_target_waits_for_the_file(trained):
    test = app(weights="own", ask="target", pcr="2.5", own="layer1.0.conv1:0.4")
    test.query_params.clear()
    test.switch_page("pages/export.py").run()
    give(test, save(trained))
    assert test.number_input(key=session.PCR).value == 2.5
    assert test.query_params[session.OWN] == "layer1.0.conv1:0.4"


def test_a_lesson_that_is_locked_asks_again_after_a_wrong_file(trained):
    test = app()
    for name, value in {"lesson": "3", "lock": "1", "weights": "own"}.items():
        test.query_params[name] = value
    test.switch_page("pages/learn.py").run()
    give(test, b"\xff" * 64).run()
    assert test.error
    give(test, save(trained)).run()
    assert not test.error
    assert not test.exception


def test_a_network_without_a_ring_has_no_lesson(trained):
    zero = {name: value * 0 if value.ndim == 4 else value for name, value in trained.items()}
    test = give(app(weights="own"), save(zero))
    assert "0 of 19 convolutions become rings" in shown(test)
    test.switch_page("pages/learn.py").run()
    assert "no convolution of" in test.error[0].value


def test_a_disk_without_room_is_told(trained, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    test = app(weights="own")
    monkeypatch.setattr(uploads.os, "replace", full)
    give(test, save(trained))
    assert "mine.safetensors could not be kept (No space left on device)" in test.error[0].value
    assert not list((cache_folder.cache_folder() / "uploads").rglob(".writing-*"))


def test_the_oldest_files_make_room_and_are_asked_for_again(trained, monkeypatch):
    test = give(app(weights="own"), save(trained))
    kept = next((cache_folder.cache_folder() / "uploads").rglob("mine.safetensors"))
    os.utime(kept, (1, 1))
    monkeypatch.setattr(uploads, "MOST_BYTES", kept.stat().st_size)
    give(app(weights="own"), save({name: value + 1 for name, value in trained.items()}))
    assert not kept.exists()
    test.switch_page("pages/layers.py").run()
    assert not test.exception
    assert "Give a file" in test.info[0].value
