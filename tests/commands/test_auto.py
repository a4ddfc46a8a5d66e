"""rsdtr auto: bad words are one sentence, and nothing is written."""

import pytest
from click.testing import CliRunner

from rsdtr.commands.cli import cli


def run(*words: str):
    return CliRunner().invoke(cli, ["auto", "digits_resnet20", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "soon"], "--time is 'soon': give a time as in 30m, 90s or 2h"),
        (["--time", "0m"], "--time is '0m': give a time"),
        (["--max-drop", "0"], "0"),
        (["--int8", "--engine", "eager"], "its files run in onnxruntime"),
        (["--for", "beauty"], "beauty"),
    ],
)
def test_bad_words_are_one_sentence_and_nothing_is_written(tmp_path, words, said):
    out = tmp_path / "small"
    result = run(*words, "--out", str(out))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not out.exists()
