"""Pages that are asked for at once, of a server that has imported nothing yet."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "pages").glob("*.py"))
# What the frame does for each visitor, in a thread of its own, before it runs the page.
AT_ONCE = """
import sys, threading
from pathlib import Path
sys.setswitchinterval(1e-5)  # threads take turns as often as can be
failed = []
def visit(script):
    try:
        from rsdtr.ui.page import import_for
        import_for(Path(script))
        known = set(sys.modules)
        imports = [line for line in Path(script).read_text().splitlines() if " import " in line]
        exec("\\n".join(line for line in imports if line.startswith(("from ", "import "))))
        left = sorted(name for name in sys.modules.keys() - known if name.startswith("rsdtr"))
        if len(sys.argv) == 2 and left:
            failed.append(left)
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=visit, args=(script,)) for script in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*failed, sep="\\n")
"""


def visit(*scripts: Path) -> str:
    """What fails where these are visited at once."""
    command = [sys.executable, "-W", "ignore", "-c", AT_ONCE, *map(str, scripts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_pages_that_are_imported_at_once_by_several_threads_all_come_up():
    """They got an ImportError of a half-made module; found by fifty sessions on a new server."""
    assert visit(*PAGES, *reversed(PAGES)) == ""


def test_all_that_a_page_imports_is_there_before_its_script_runs():
    assert visit(ROOT / "pages" / "compare.py") == ""
