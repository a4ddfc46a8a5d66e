"""Where little is to be had: pipes that know few signs, and no home folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsdtr.errors import WeightsError
from rsdtr.system import cache_folder as module
from rsdtr.system.cache_folder import cache_folder
from tests.support.checkout import ROOT
from tests.support.data_on_disk import class_folders

PLAN = ["plan", "digits_resnet20", "--layers", "layer3.2.conv2"]


def run(*words: str, encoding: str = "utf-8", **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "rsdtr", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding} | environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1250"])
def test_a_table_is_readable_in_every_encoding(encoding: str) -> None:
    done = run(*PLAN, encoding=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "eps_p" in text
    assert "->" in text
    assert "?" not in text
    assert "\\u" not in text


def test_json_says_the_same_in_every_encoding() -> None:
    plain, wide = (
        json.loads(run(*PLAN, "--json", encoding=encoding).stdout)
        for encoding in ("cp1252", "utf-8")
    )
    for told in (plain, wide):
        told.pop("seconds")
    assert plain == wide


def test_an_error_is_one_line_in_every_encoding(tmp_path: Path) -> None:
    done = run("evaluate", "digits_resnet20", "--data", "Größe ✓", encoding="latin-1")
    assert done.returncode == 2
    assert done.stderr.decode("latin-1").count("\n") == 1 + done.stderr.count(b"reading")
    assert b"Gr\xf6\xdfe \\u2713" in done.stderr


def no_home(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    for name in ("RSDTR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", unknown)
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(temporary))


@pytest.mark.skipif(os.name == "nt", reason="there is a home on Windows")
def test_without_a_home_a_temporary_folder_of_one_s_own_serves(tmp_path, monkeypatch) -> None:
    no_home(monkeypatch, tmp_path)
    folder = cache_folder()
    assert folder == tmp_path / f"rsdtr-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder


@pytest.mark.skipif(os.name == "nt", reason="there is a home on Windows")
@pytest.mark.parametrize("kind", ["link", "file", "other"])
def test_a_folder_that_somebody_else_has_put_there_is_refused(tmp_path, monkeypatch, kind) -> None:
    no_home(monkeypatch, tmp_path)
    place = tmp_path / f"rsdtr-{os.getuid()}"
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        place.symlink_to(tmp_path / "theirs")
    elif kind == "file":
        place.write_text("")
    else:
        place.mkdir()
        monkeypatch.setattr(module.os, "getuid", lambda: int(place.name.rpartition("-")[2]) + 0)
        real = Path.lstat
        monkeypatch.setattr(
            module.Path, "lstat",
            lambda self: os.stat_result((*real(self)[:4], 12345, *real(self)[5:])),
        )  # fmt: skip
    with pytest.raises(WeightsError, match=r"there is no home folder, and .* name a folder for"):
        cache_folder()


def test_the_command_line_refuses_accuracy_by_strange_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, ["avion", "zebra"], 10)
    done = run("evaluate", "digits_resnet20", "--data", str(tmp_path))
    assert done.returncode == 2
    assert b"accuracy needs labels that mean the outputs of digits_resnet20" in done.stderr


def test_the_command_line_marks_an_assumption(tmp_path: Path) -> None:
    class_folders(tmp_path, ["ham", "spam"], 10)
    words = ["evaluate", "digits_resnet20", "--classes", "2", "--weights", "none"]
    done = run(*words, "--data", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model"] == "digits_resnet20@2"
    assert "in the order of their names (ham, spam)" in told["assumed"]
    assert b"in the order of their names (ham, spam)" in done.stderr
