"""The command line in this process: its result, its standard output, or its one sentence."""

from __future__ import annotations

from click.testing import CliRunner, Result

from rsdtr.commands.cli import cli


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words), prog_name="python -m rsdtr")


def done(*words: str) -> Result:
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*words: str) -> str:
    """The one sentence on stderr that a bad request gets."""
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    return last
