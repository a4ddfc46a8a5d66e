"""The winners on disk: what comes back, what is ignored, what two writers leave."""

import logging
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import safetensors
import safetensors.numpy
from filelock import FileLock

from rsdtr.models import load_model, model_spec
from rsdtr.planning import winners_on_disk
from rsdtr.planning.layer_profile import LayerProfile
from rsdtr.planning.model_profile import ModelProfile, profile
from rsdtr.planning.plan import plan
from rsdtr.planning.winners_on_disk import load_winners, save_winners, store_path
from rsdtr.search.candidate import GRID, OBJECTIVES, RULES, Question
from rsdtr.system import atomic_files
from rsdtr.system.atomic_files import locked
from tests.support.networks import varied, varied_spec

ASKED = [Question("paper", "storage", eps) for eps in (0.02, 0.4, 0.95)]
ASKED += [Question("tight", "macs", 0.4), Question("paper", "macs", 0.61)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "profiles"


def fresh() -> ModelProfile:
    return profile(varied(), varied_spec())


def known(of: ModelProfile) -> dict:
    return {(name, question): winner for name, question, winner in of.winners}


@pytest.fixture
def stored() -> ModelProfile:
    """A profile that knows ten winners, all of them on disk."""
    found = fresh()
    for name in ("body", "wide"):
        for question in ASKED:
            found.winner(found.layer(name), question)
    assert save_winners(found)
    return found


def test_what_was_stored_comes_back_equal(stored):
    again = fresh()
    assert load_winners(again) == 10
    assert known(again) == known(stored)
    assert load_winners(again) == 10  # and once more changes nothing
    assert known(again) == known(stored)


def test_a_plan_of_a_warm_model_searches_nothing(stored, monkeypatch):
    def search(*_: object) -> None:
        raise AssertionError("a search")

    cold = plan(stored, 0.4)
    again = fresh()
    load_winners(again)
    monkeypatch.setattr(LayerProfile, "search", search)
    assert plan(again, 0.4).layers == cold.layers


def test_nothing_stored_is_nothing_known(folder):
    assert load_winners(fresh()) == 0
    assert not folder.exists()


def test_between_grid_points_nothing_is_stored(stored):
    between = Question("paper", "storage", 0.4321)
    stored.winner(stored.layer("body"), between)
    assert save_winners(stored)
    again = fresh()
    assert load_winners(again) == 10
    assert ("body", between) not in known(again)


def test_the_folder_is_the_owner_s_and_holds_no_leftovers(stored, folder):
    assert sorted(path.name for path in folder.iterdir()) == [store_path(stored).name]
    if os.name != "nt":
        assert folder.stat().st_mode & 0o777 == 0o700


def rewritten(path: Path, metadata: dict | None = None, **changes: object) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        own = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in changes.items():
        arrays[name.replace("__", ".")] = value
    path.write_bytes(safetensors.numpy.save(arrays, own | (metadata or {})))


def ignored_and_rebuilt(stored: ModelProfile, caplog: pytest.LogCaptureFixture, word: str) -> None:
    again = fresh()
    with caplog.at_level(logging.WARNING):
        assert load_winners(again) == 0
    assert len(again.winners) == 0
    assert word in caplog.text
    assert save_winners(stored)
    assert load_winners(again) == 10


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_a_truncated_file_is_ignored_and_rebuilt(stored, caplog, size):
    path = store_path(stored)
    path.write_bytes(path.read_bytes()[:size])
    ignored_and_rebuilt(stored, caplog, "is damaged (")


@pytest.mark.parametrize("place", [3, 100, -1, -5000])
def test_a_changed_byte_is_noticed(stored, caplog, place):
    path = store_path(stored)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x55
    path.write_bytes(content)
    ignored_and_rebuilt(stored, caplog, "is damaged")


def test_foreign_files_are_ignored_and_rebuilt(stored, caplog):
    path = store_path(stored)
    path.write_bytes(b"PK\x03\x04 something else entirely")
    ignored_and_rebuilt(stored, caplog, "is damaged (")
    path.write_bytes(safetensors.numpy.save({}, {"who": "another program"}))
    ignored_and_rebuilt(stored, caplog, "of another model")
    path.unlink()
    path.mkdir()
    again = fresh()
    assert load_winners(again) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format":2', '"format":1'),
        (f'"search":{winners_on_disk.SEARCH_VERSION}', '"search":0'),
        ('"weights_sha256":"', '"weights_sha256":"0'),
        ('"wide",[20,', '"wide",[21,'),
        ("[14,10]", "[28,20]"),
        ("0.02,", "0.025,"),
    ],
)
def test_what_was_stored_for_something_else_is_ignored(stored, caplog, old, new):
    path = store_path(stored)
    with safetensors.safe_open(path, framework="numpy") as file:
        identity = file.metadata()["identity"]
    assert old in identity
    rewritten(path, {"identity": identity.replace(old, new, 1)})
    ignored_and_rebuilt(stored, caplog, "of another model")


def test_values_that_no_winner_has_are_ignored(stored, caplog):
    path = store_path(stored)
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        identity = file.metadata()["identity"]
    for name, value in (("shift", 4), ("ranks", 0), ("error", float("nan"))):
        changed = {key: array.copy() for key, array in arrays.items()}
        key = f"paper.storage.{name}"
        changed[key][1, GRID.index(0.4)] = value
        path.write_bytes(winners_on_disk._as_bytes(changed, identity))
        ignored_and_rebuilt(stored, caplog, "of another model")


def test_other_weights_have_a_file_of_their_own(stored):
    other = varied()
    other.body.weight.data.mul_(2)
    changed = profile(other, varied_spec())
    assert store_path(changed) != store_path(stored)
    assert load_winners(changed) == 0


def write_in_turns(name: str, barrier) -> None:
    mine = fresh()
    barrier.wait()
    for eps in GRID[::8]:
        mine.winner(mine.layer(name), Question("paper", "storage", eps))
        assert save_winners(mine)


def test_two_processes_that_write_at_once_lose_nothing():
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    writers = [
        context.Process(target=write_in_turns, args=(name, barrier)) for name in ("body", "wide")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    again = fresh()
    assert load_winners(again) == 2 * len(GRID[::8])


def test_a_lock_that_is_never_given_back_does_not_stop_a_writer(stored, monkeypatch):
    monkeypatch.setattr(atomic_files, "LOCK_SECONDS", 0.05)
    stored.winner(stored.layer("wide"), Question("paper", "storage", 0.5))
    with locked():
        assert save_winners(stored)
    assert load_winners(fresh()) == 11


def test_without_locks_everything_else_still_works(stored, monkeypatch):
    def unsupported(_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    stored.winner(stored.layer("wide"), Question("paper", "storage", 0.5))
    assert save_winners(stored)
    assert load_winners(fresh()) == 11


def test_the_least_recently_used_models_go_first(stored, folder, monkeypatch):
    size = store_path(stored).stat().st_size
    for age, name in ((300, "a"), (200, "b"), (100, "c")):
        (folder / f"{name}.safetensors").write_bytes(bytes(size))
        (folder / f"{name}.json").write_text("{}")
        for path in folder.glob(f"{name}.*"):
            os.utime(path, (time.time() - age,) * 2)
    os.utime(store_path(stored), (1, 1))
    load_winners(fresh())  # and so it is the latest
    monkeypatch.setattr(winners_on_disk, "KEPT_BYTES", 3 * size)
    stored.winner(stored.layer("wide"), Question("paper", "storage", 0.5))
    assert save_winners(stored)
    left = {path.stem for path in folder.iterdir()}
    assert left == {"b", "c", store_path(stored).stem}
    monkeypatch.setattr(winners_on_disk, "KEPT_BYTES", 1)
    stored.winner(stored.layer("wide"), Question("paper", "storage", 0.6))
    assert save_winners(stored)
    assert {path.stem for path in folder.iterdir()} == {store_path(stored).stem}


def test_what_a_killed_writer_left_is_cleared(stored, folder):
    for age, name in ((0, ".writing-new"), (7200, ".writing-old")):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    stored.winner(stored.layer("wide"), Question("paper", "storage", 0.5))
    assert save_winners(stored)
    assert [path.name for path in folder.glob(".writing-*")] == [".writing-new"]


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "file"))
    found = fresh()
    found.winner(found.layer("body"), ASKED[0])
    with caplog.at_level(logging.WARNING):
        assert not save_winners(found)
        assert not save_winners(found)
    assert caplog.text.count("winners are kept in memory only") == 1
    assert load_winners(found) == 0
    assert plan(found, 0.4).pcr > 1


def test_a_full_disk_is_a_warning_and_leaves_the_old_file(stored, folder, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    stored.winner(stored.layer("wide"), Question("paper", "storage", 0.5))
    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        assert not save_winners(stored)
    assert "No space left on device" in caplog.text
    assert not list(folder.glob(".writing-*"))
    assert load_winners(fresh()) == 10


def test_the_bundled_network_has_nothing_to_search():
    spec = model_spec("digits_resnet20")
    bundled = profile(load_model(spec.name), spec)
    rings = sum(layer.obstacle is None for layer in bundled.layers)
    assert load_winners(bundled) == rings * len(GRID) * len(RULES) * len(OBJECTIVES)
    assert save_winners(bundled)
    assert not store_path(bundled).exists()  # nothing is known that did not come with the program


@pytest.mark.parametrize("question", ASKED)
def test_what_comes_with_the_program_is_what_a_search_finds(question):
    spec = model_spec("digits_resnet20")
    bundled, searched = (profile(load_model(spec.name), spec) for _ in range(2))
    load_winners(bundled)
    for layer in searched.layers[::6]:
        told, found = (of.winner(of.layer(layer.name), question) for of in (bundled, searched))
        assert (told.shift, told.ranks, told.storage) == (found.shift, found.ranks, found.storage)
        assert told.relative_error == pytest.approx(found.relative_error, rel=1e-6, abs=1e-9)
