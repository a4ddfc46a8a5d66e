"""A few hundred seeded mutations for every parser; `make soak` runs 100,000 of each."""

import pytest

from tests.soak.mutations import findings, parsers

NAMES = ("safetensors", "manifest", "plan", "device profile", "url", "parquet", "picture")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return parsers(tmp_path_factory.mktemp("mutations"))


def test_every_parser_is_tried(known):
    assert tuple(known) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_valid_content_is_read(known, name):
    contents, parse = known[name]
    for content in contents:
        assert parse(content) is not None


@pytest.mark.parametrize("name", NAMES)
def test_mutations_are_read_or_refused_in_time(known, name):
    assert findings(name, known[name], 300) == []


def test_a_finding_is_one():
    def parse(content: bytes) -> None:
        raise KeyError("a parser's own mistake")

    assert len(findings("broken", ([b"x"], parse), 3)) == 3
