"""Pages that are asked for at once, of a server that has imported nothing yet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

PAGES = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))]
AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-5)  # threads take turns as often as can be
failed = []
def run(source):
    try:
        exec(source)
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=run, args=(source,)) for source in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*failed, sep="\\n")
"""

WHAT_IS_LEFT = """
import sys, rsdtr.ui.opening
known = set(sys.modules)
{}
print(*sorted(name for name in sys.modules.keys() - known if name.startswith("rsdtr")))
"""


def imports(path: Path) -> list[ast.stmt]:
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return [node for node in found if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_imports_the_opening_before_anything_else_of_this_program(path):
    own = [ast.unparse(node) for node in imports(path) if "rsdtr" in ast.unparse(node)]
    assert own[0] == "from rsdtr.ui.shared.frame import page"


def test_the_opening_leaves_nothing_of_this_program_to_import():
    sources = "\n".join(ast.unparse(node) for path in PAGES for node in imports(path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WHAT_IS_LEFT.format(sources)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""


def test_pages_that_are_imported_at_once_by_several_threads_all_come_up():
    """They got an ImportError of a half-made module; found by fifty sessions on a new server."""
    sources = ["\n".join(ast.unparse(node) for node in imports(path)) for path in PAGES]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AT_ONCE, *sources, *reversed(sources)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""
