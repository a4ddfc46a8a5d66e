"""What the command line shows: progress on stderr, one JSON object or a table on stdout."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

import click

from rsdtr.errors import RsdtrError, first_line
from rsdtr.planning.plan import CompressionPlan, LayerPlan
from rsdtr.system.extras import missing_extra


class Progress(Protocol):
    """Told how much of the work is done, and how long the rest may take where that is known."""

    def __call__(self, done: int, total: int, seconds_left: float | None = None, /) -> None: ...


_PLAINER = "rsdtr.plainer"
_SIGNS = {
    "ε": "eps", "ρ": "rho", "σ": "sigma", "×": "x", "→": "->", "…": "...", "–": "-", "±": "+-",
    "≤": "<=", "≥": ">=", "·": "*", "²": "^2", "‖": "||", "𝓦": "W", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
_TOLD_SECONDS = 10.0  # between two lines of progress where none can be redrawn
BAD_REQUEST, OUR_FAULT, INTERRUPTED = 2, 1, 130


class Commands(click.Group):
    """A group whose exit codes are a promise: 0 done, 2 bad request, 1 our fault, 130 interrupted.

    A bad request is one line on stderr. RSDTR_DEBUG=1 shows the traceback of what is our fault.
    """

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        readable_output()
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(BAD_REQUEST)
        except click.ClickException as error:
            click.echo(f"Error: {error.format_message()}", err=True)
            sys.exit(BAD_REQUEST)
        except RsdtrError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(BAD_REQUEST)
        except ModuleNotFoundError as error:
            if (absent := missing_extra(error)) is None:
                _our_fault(error)
            click.echo(f"Error: {absent}", err=True)
            sys.exit(BAD_REQUEST)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)
        except Exception as error:
            _our_fault(error)
        sys.exit(code if isinstance(code, int) else 0)


def _our_fault(error: Exception) -> NoReturn:
    if os.environ.get("RSDTR_DEBUG"):
        traceback.print_exc()
    first = first_line(error, "no message")
    click.echo(
        f"internal error: {type(error).__name__}: {first} (RSDTR_DEBUG=1 shows where)", err=True
    )
    sys.exit(OUR_FAULT)


@contextmanager
def progress(doing: str, unit: str = "") -> Iterator[Progress]:
    """A line on stderr: redrawn on a terminal; elsewhere written when the work is done, and every
    ten seconds until then.
    """
    started = time.perf_counter()
    terminal = sys.stderr.isatty()
    drawn, told = 0.0, started

    def show(done: int, total: int, seconds_left: float | None = None, /) -> None:
        nonlocal drawn, told
        now = time.perf_counter()
        rest = "" if seconds_left is None else f", {seconds_left:.0f} s left"
        line = f"{doing}: {done:,} of {total:,} {unit}{rest}"
        if terminal and (now - drawn > 0.1 or done == total):
            drawn = now
            click.echo(f"\r{line}\033[K", err=True, nl=False)
        elif not terminal and now - told >= _TOLD_SECONDS:
            told = now
            click.echo(line, err=True)

    try:
        yield show
    except BaseException:
        if drawn:  # what follows is an error, on a line of its own
            click.echo(err=True)
        raise
    start, end = ("\r", "\033[K") if terminal else ("", "")
    click.echo(f"{start}{doing}: {time.perf_counter() - started:.1f} s{end}", err=True)


def emit(content: Mapping[str, object]) -> None:
    """One JSON object on stdout, and nothing else."""
    emit_json(json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1))


def emit_json(text: str) -> None:
    """A JSON text on stdout; where that is not in UTF-8, what it lacks is escaped as JSON does."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=1)
    click.echo(text)


def readable_output() -> None:
    """Have standard output and error say in plainer signs what their encoding has no sign for.

    A pipe on Windows knows cp1252, an old terminal latin-1: neither has an ε.
    """
    codecs.register_error(_PLAINER, _in_plainer_signs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAINER)


def _in_plainer_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    plain = "".join(_SIGNS.get(sign, ascii(sign)[1:-1]) for sign in signs)
    return plain, error.end


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def plan_table(decided: CompressionPlan) -> str:
    """The plan as a table for a person."""

    def row(layer: LayerPlan) -> tuple[str, ...]:
        shape = "×".join(map(str, layer.shape))
        o, i, kh, kw = layer.shape
        first = (layer.name, shape, str(layer.runs)) if several else (layer.name, shape)
        if layer.ranks is None:
            return *first, "", "", "", "", f"{layer.storage:,}", f"{layer.kept_dense}"
        return (
            *first,
            f"{layer.eps:g}",
            str(layer.shift),
            str(layer.r0),
            " ".join(map(str, layer.ranks)),
            f"{o * i * kh * kw:,} → {layer.storage:,}",
            f"{layer.relative_error:.3f}",
        )

    several = decided.runs_several_times
    header = (
        "layer",
        "kernel",
        *["runs"] * several,
        "ε_p",
        "shift",
        "r0",
        "ranks",
        "parameters",
        "error, or why dense",
    )
    params, macs = decided.params, decided.macs
    return (
        f"{table(header, [row(layer) for layer in decided.layers])}\n\n"
        f"{decided.model} at {decided.label}: "
        f"PCR {decided.pcr:.3f} ({params.original:,} → {params.compressed:,} parameters), "
        f"FCR {decided.fcr:.3f} ({macs.original:,} → {macs.compressed:,} MACs)"
        + "".join(f"\nnot counted: {part}" for part in decided.not_counted)
    )
