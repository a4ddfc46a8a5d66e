"""The wheel, installed where there is no checkout: the command line and the explorer run."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

pytestmark = pytest.mark.process
# The app's frame, as the server runs it.
FIRST_PAGE = """
from streamlit.testing.v1 import AppTest
from rsdtr.system.app_folder import APP_FOLDER, INSTALLED
from rsdtr.ui.server import APP
from rsdtr.ui.shared import session
assert INSTALLED and APP.is_relative_to(APP_FOLDER), APP
assert (APP_FOLDER / ".streamlit" / "config.toml").is_file()
page = AppTest.from_file(str(APP), default_timeout=300)
page.session_state[session.UNFOLDED] = True  # no browser draws a first screen here
page.run()
assert not page.exception and not page.error, (page.exception, page.error)
print(page.title[0].value if page.title else page.header[0].value, len(page.dataframe))
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=kept | environment,
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A new environment with the wheel; what it depends on is what is installed here."""
    place = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", place, ROOT, cwd=place,
    )  # fmt: skip
    (wheel,) = place.glob("rsdtr-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    found = place / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    paths = run(found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place)
    run(
        sys.executable, "-m", "pip", "--python", found, "install", "--no-deps", "--no-index",
        "--no-warn-script-location", wheel, cwd=place,
    )  # fmt: skip
    here = sysconfig.get_path("purelib")
    (Path(paths.strip()) / "installed.pth").write_text(f"{here}\n", encoding="utf-8")
    return found


def test_the_program_plans_in_an_empty_folder(python, tmp_path):
    program = python.with_name("rsdtr")
    printed = run(program, "plan", "digits_resnet20", "--eps", "0.6", cwd=tmp_path)
    same = [sys.executable, "-m", "rsdtr", "plan", "digits_resnet20", "--eps", "0.6"]
    assert printed == run(*same, cwd=ROOT)
    assert list(tmp_path.iterdir()) == []


def test_the_first_page_opens_in_an_empty_folder(python, tmp_path):
    printed = run(python, "-W", "ignore", "-c", FIRST_PAGE, cwd=tmp_path)
    assert printed.split()[-1] != "0"


def test_the_first_python_of_the_readme_runs_in_an_empty_folder(python, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("```python\n")[2].partition("```")[0]
    assert "rsdtr.shrink(net" in block
    (tmp_path / "mine.py").write_text(block, encoding="utf-8")
    printed = run(python, "mine.py", cwd=tmp_path)
    assert printed.startswith("Sequential at PCR ≥ 3: PCR 3.")
    assert (tmp_path / "small" / "model.safetensors").is_file()


def test_the_package_says_that_it_is_typed_and_brings_its_files(python, tmp_path):
    program = (
        "import pathlib, rsdtr; from rsdtr.baselines.benchmark import PEER\n"
        "from rsdtr.models.model_loading import ASSETS\n"
        "where = pathlib.Path(rsdtr.__file__).parent\n"
        "print(where.parent, *[(where / 'py.typed').is_file(), PEER.is_file(), ASSETS.is_dir()])"
    )
    printed = run(python, "-c", program, cwd=tmp_path).split()
    assert str(ROOT) not in printed[0]
    assert printed[1:] == ["True"] * 3
