"""Where weights come from: what each word means, and what is told of it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from rsdtr.models.weights_source import PUBLISHED, WeightsField, WeightsSource
from rsdtr.typing import Frozen


class _Content(Frozen):
    weights: WeightsField


@pytest.mark.parametrize(
    ("word", "source"),
    [
        (None, PUBLISHED),
        ("none", WeightsSource(synthetic=True)),
        ("mine.pth", WeightsSource(Path("mine.pth"))),
        (Path("none"), WeightsSource(Path("none"))),  # a path is a file, whatever its name
    ],
)
def test_a_word_means_one_source(word, source):
    assert WeightsSource.of(word) == source
    assert WeightsSource.of(source) is source


@pytest.mark.parametrize("word", [None, "none", "folder/mine.pth"])
def test_it_is_written_as_its_word_and_read_back(word):
    content = _Content(weights=WeightsSource.of(word))
    assert content.model_dump(mode="json") == {"weights": word}
    assert _Content.model_validate_json(content.model_dump_json()) == content


def test_the_same_wherever_a_process_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert WeightsSource.of("mine.pth").same_everywhere().file == tmp_path / "mine.pth"
    assert PUBLISHED.same_everywhere() is PUBLISHED


def test_its_folder_is_nobody_elses_business():
    assert WeightsSource.of("/home/me/mine.pth").without_folder().word == "mine.pth"
    assert WeightsSource.of("none").without_folder().word == "none"


def test_what_lies_in_a_file_is_not_synthetic():
    with pytest.raises(ValueError, match=r"synthetic weights lie in no file, and a\.pth was given"):
        WeightsSource(Path("a.pth"), synthetic=True)


def test_what_is_no_word_is_no_source():
    with pytest.raises(ValidationError):
        _Content.model_validate({"weights": 3})
