"""Texts from template files: jinja2, where a name that is not given is an error."""

from __future__ import annotations

import html
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup


def text_template(path: Path) -> Template:
    """The template in a file, for plain text or Python source: values are written as they are."""
    return _environment(path.parent).get_template(path.name)


def html_template(path: Path) -> Template:
    """The template in a file, for HTML: values are escaped by `html.escape`, except for Markup."""
    environment = _environment(path.parent)
    environment.autoescape = True
    environment.finalize = _escaped
    return environment.get_template(path.name)


def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _escaped(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))
