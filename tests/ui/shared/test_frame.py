"""Pages that are asked for at once, of a server that has imported nothing yet."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.support.checkout import ROOT

PAGES = sorted((ROOT / "pages").glob("*.py"))
# What app.py does for each visitor, in a thread of its own, before it runs the page's script.
AT_ONCE = """
import sys, threading
from pathlib import Path
sys.setswitchinterval(1e-5)  # threads take turns as often as can be
failed = []
def visit(script):
    try:
        from rsdtr.ui.shared.frame import import_for
        import_for(Path(script))
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=visit, args=(script,)) for script in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*failed, sep="\\n")
"""
WHAT_IS_LEFT = """
import sys
from pathlib import Path
from rsdtr.ui.shared.frame import import_for
import_for(Path(sys.argv[1]))
known = set(sys.modules)
{}
print(*sorted(name for name in sys.modules.keys() - known if name.startswith("rsdtr")))
"""


def run(source: str, *scripts: Path) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-W", "ignore", "-c", source, *map(str, scripts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_pages_that_are_imported_at_once_by_several_threads_all_come_up():
    """They got an ImportError of a half-made module; found by fifty sessions on a new server."""
    assert run(AT_ONCE, *PAGES, *reversed(PAGES)) == ""


def test_a_page_imports_nothing_of_this_program_that_was_not_imported_for_it():
    script = ROOT / "pages" / "compare.py"
    body = ast.parse(script.read_text(encoding="utf-8")).body
    own = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert own
    assert run(WHAT_IS_LEFT.format("\n".join(map(ast.unparse, own))), script) == ""
