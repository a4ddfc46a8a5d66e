"""Where tests lie: beside the names of what they test, and never in each other's way."""

import ast
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

TESTS = ROOT / "tests"
# Of everything, or of a whole package.
APART = ("project", "browser", "soak")
WHOLE = ("test_pages", "test_walks", "test_masks_and_boxes")


def files() -> list[Path]:
    return sorted(TESTS.rglob("test_*.py"))


def place(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def has_its_module(path: str) -> bool:
    """tests/ring/test_cost.py for rsdtr/ring/cost.py; test_cost_of_forms.py is an aspect of it."""
    folder, name = Path(path).parent, Path(path).stem
    if folder.parts and folder.parts[0] in APART:
        return True
    if folder == Path("ui") and name in WHOLE:
        return True
    modules = [module.stem for module in (ROOT / "rsdtr" / folder).glob("*.py")]
    return folder != Path() and any(f"{name}_".startswith(f"test_{module}_") for module in modules)


def imports_a_test(source: str) -> bool:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    found = [f"{node.module}.{name.name}" for node in nodes for name in node.names]
    return any(part.startswith("test_") for name in found for part in name.split("."))


@pytest.mark.parametrize("path", files(), ids=place)
def test_a_test_lies_where_its_module_lies_and_imports_no_other_test(path):
    assert has_its_module(place(path))
    assert not imports_a_test(path.read_text(encoding="utf-8"))


def test_these_checks_can_fail():
    assert not has_its_module("test_cost.py")
    assert not has_its_module("ring/test_price.py")
    assert not has_its_module("ring/test_costs.py")
    assert has_its_module("ring/test_cost.py")
    assert has_its_module("ring/test_cost_of_forms.py")
    assert imports_a_test("from tests.ring.test_cost import counted")
    assert imports_a_test("from test_cost import counted")
    assert imports_a_test("from tests.ring import test_cost")
    assert not imports_a_test("from tests.support.oracles import counted")
