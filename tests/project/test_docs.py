"""README and docs: what they name exists, what they promise is tested, what they show runs."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.checkout import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(test_\w+)`")
_FILE = re.compile(r"`([\w./-]+(?:\.\w+|/))`")
_CALL = re.compile(r"(?:python -m rsdtr|torchrun \S+ \S+ -m rsdtr|\brsdtr) ([a-z].*)")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return _FENCE.sub("", text)


def python_of(text: str) -> list[str]:
    return [block for language, block in _FENCE.findall(text) if language == "python"]


def anchors(text: str) -> set[str]:
    """What a forge calls the headings: small letters, hyphens for spaces, no punctuation."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path: Path, text: str) -> list[str]:
    broken = []
    for target in _LINK.findall(text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        if not place.exists() or (anchor and anchor not in anchors(text_of(place))):
            broken.append(target)
    return broken


def missing_files(text: str) -> list[str]:
    """Of the files and folders that the text names, those that are nowhere."""
    names = [name for name in _FILE.findall(text) if not name.startswith(".")]
    return [name for name in names if not any((r / name).exists() for r in (ROOT, ROOT / "rsdtr"))]


def public(module: str) -> set[str]:
    return set(getattr(importlib.import_module(module), "__all__", ()))


def packages() -> set[str]:
    """This program, its packages, and theirs, by their full names."""
    inits = (ROOT / "rsdtr").rglob("__init__.py")
    return {".".join(init.parent.relative_to(ROOT).parts) for init in inits}


def hidden_imports(source: str) -> list[str]:
    """Of the names of this program that the source imports, those that are not public."""
    hidden = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names if name.name.startswith("rsdtr.")]
            hidden += [name for name in names if name not in packages()]
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "rsdtr":
            module = str(node.module)
            known = public(module) if module in packages() else set()
            hidden += [f"{module}.{n.name}" for n in node.names if n.name not in known]
    return hidden


def commands_in(text: str) -> Iterator[list[str]]:
    """The arguments of every call of this program that stands in a block of shell."""
    lines = re.findall(r"^ {4}(?:.*\\\n)*.*$", text, re.MULTILINE)
    for line in lines:
        found = _CALL.search(line.replace("\\\n", " ").strip())
        if found:
            words = shlex.split(found[1], comments=True)
            if words[0].isupper() or any("…" in word for word in words):
                continue
            yield words


def refused(words: list[str]) -> str | None:
    """Why the command line does not take these words, or None; nothing is run."""
    from rsdtr.commands.cli import cli

    command: click.Command = cli
    name = "rsdtr"
    words = list(words)
    try:
        while isinstance(command, click.Group):
            name = words.pop(0) if words else ""
            found = command.commands.get(name)
            if found is None:
                return f"there is no command {name!r}"
            command = found
        command.make_context(name, words)
    except click.ClickException as error:
        return error.format_message()
    return None


def named_tests() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)", text_of(path), re.MULTILINE):
            found.setdefault(name, []).append(path)
    return found


def untested(text: str, known: dict[str, list[Path]]) -> list[str]:
    """Of the tests that the text names, those that do not exist, or of which there are several."""
    return [name for name in _TEST.findall(text) if len(known.get(name, ())) != 1]


def test_the_readme_is_one_page():
    assert len(text_of(README).splitlines()) <= 150


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_points_to_something(path):
    assert broken_links(path, text_of(path)) == []


def test_every_page_of_the_documentation_is_in_its_index():
    index = text_of(DOCS / "README.md")
    assert [page.name for page in DOCS.glob("*.md") if f"({page.name})" not in index] == [
        "README.md"
    ]


def test_every_file_that_the_architecture_names_is_there():
    text = text_of(DOCS / "architecture.md")
    assert len(_FILE.findall(text)) > 60
    assert missing_files(text) == []


def test_the_architecture_names_every_package_once():
    table = text_of(DOCS / "architecture.md").partition("## Values")[0]
    named = re.findall(r"^\|[^|]*\| `(\w+)/` \|", table, re.MULTILINE)
    folders = [name.split(".") for name in packages()]
    assert named[0] == "rsdtr"
    assert sorted(named[1:]) == sorted(parts[1] for parts in folders if len(parts) == 2)


def test_fourteen_questions_are_answered_with_files():
    table = text_of(DOCS / "architecture.md").partition("## Where is")[2]
    rows = re.findall(r"^\| (w[^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    assert len(rows) == 14
    assert all(_FILE.search(answer) for _, answer in rows)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_documented_python_imports_public_names_alone(path):
    for block in python_of(text_of(path)):
        compile(block, str(path), "exec")
        assert hidden_imports(block) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_import_public_names_alone(path):
    cells = json.loads(text_of(path))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert hidden_imports(re.sub(r"^%.*$", "", source, flags=re.MULTILINE)) == []


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    first, steps = python_of(text_of(README))
    monkeypatch.chdir(tmp_path)
    exec(compile(first, str(README), "exec"), {})
    said = re.match(r"Sequential at PCR ≥ 3: PCR (\d\.\d+) .*are rings\n$", capsys.readouterr().out)
    assert said is not None
    assert float(said[1]) >= 3
    assert {path.name for path in (tmp_path / "small").iterdir()} == {
        "model.safetensors", "manifest.json",
    }  # fmt: skip
    exec(compile(steps, str(README), "exec"), {})
    assert re.match(r"7\.94\d+ 5\.51\d+ Accuracy\(percent=9\d", capsys.readouterr().out)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_of_the_documentation_is_one_that_there_is(path):
    wrong = {" ".join(words): refused(words) for words in commands_in(text_of(path))}
    assert {words: reason for words, reason in wrong.items() if reason} == {}


def test_every_variable_of_the_environment_is_documented():
    sources = [text_of(path) for path in (ROOT / "rsdtr").rglob("*.py")]
    variables = {name for source in sources for name in re.findall(r"\"(RSDTR_[A-Z]+)\"", source)}
    assert len(variables) >= 4
    told = "\n".join(text_of(page) for page in DOCS.glob("*.md"))
    assert [name for name in sorted(variables) if f"`{name}" not in told] == []


def test_every_promise_has_a_test():
    text = text_of(DOCS / "promises.md")
    rows = [row for row in re.findall(r"^\| (.+) \|$", text, re.MULTILINE) if "---" not in row]
    assert len(rows) > 60
    assert untested(text, named_tests()) == []
    assert [row for row in rows if not _TEST.search(row) and row != "promise | test"] == []


def test_these_checks_can_fail(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One & two\n", encoding="utf-8")
    text = "[a](page.md#one--two) [b](none.md) [c](page.md#three) [d](#x) [e](https://x.org/y)"
    assert broken_links(page, text) == ["none.md", "page.md#three", "#x"]
    assert missing_files("`ring/cost.py` `app.py` `ring/nothing.py` `x`") == ["ring/nothing.py"]
    assert hidden_imports("from rsdtr import plan\nimport rsdtr.models\nimport numpy") == []
    assert hidden_imports("from rsdtr import nothing\nfrom rsdtr.models.zoo import own_model") == [
        "rsdtr.nothing", "rsdtr.models.zoo.own_model",
    ]  # fmt: skip
    assert hidden_imports("import rsdtr.models.zoo") == ["rsdtr.models.zoo"]
    shell = "    make run\n    python -m rsdtr plan x --eps 0.5 \\\n        --json    # why\n"
    assert list(commands_in(shell)) == [["plan", "x", "--eps", "0.5", "--json"]]
    assert refused(["plan", "x", "--eps", "0.5"]) is None
    assert "no command" in str(refused(["plam", "x"]))
    assert "--epsilon" in str(refused(["plan", "x", "--epsilon", "0.5"]))
    assert untested("`test_a` `test_b` `test_c`", {"test_a": [page], "test_b": [page, page]}) == [
        "test_b", "test_c",
    ]  # fmt: skip
