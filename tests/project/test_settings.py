"""The settings that keep the app private to this machine."""

import re
import tomllib

from rsdtr.system.cache_folder import cache_folder, private_folder
from tests.support.checkout import ROOT

SETTINGS = ROOT / ".streamlit" / "config.toml"


def test_the_app_asks_nothing_sends_nothing_and_answers_this_machine_only():
    found = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    assert found["browser"]["gatherUsageStats"] is False
    server = found["server"]
    assert server["showEmailPrompt"] is False
    assert server["address"] == "127.0.0.1"
    assert server["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert server["enableCORS"] is server["enableXsrfProtection"] is True
    assert server["maxUploadSize"] <= 512
    assert found["client"]["showErrorDetails"] == "none"


def test_no_page_waits_for_the_garbage_of_another():
    """It took nine tenths of the time of a server with fifty readers; found by watching one."""
    assert tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["runner"]["postScriptGC"] is False


def test_every_setting_is_one_that_streamlit_knows():
    from streamlit import config

    known = config.get_config_options(force_reparse=True)
    for section, options in tomllib.loads(SETTINGS.read_text(encoding="utf-8")).items():
        for name in flat(options):
            assert f"{section}.{name}" in known


def flat(options: dict[str, object], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in options.items():
        if isinstance(value, dict):
            names += flat(value, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def test_the_cache_is_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RSDTR_CACHE", str(tmp_path / "deep" / "cache"))
    folder = private_folder(cache_folder() / "jobs" / "one")
    for inside in (folder, folder.parent, folder.parents[1]):
        assert inside.stat().st_mode & 0o777 == 0o700
    assert private_folder(folder) == folder  # it may exist


def test_what_is_installed_is_pinned_and_what_is_pinned_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    files = ("requirements.txt", "requirements-dev.txt")
    run, dev = [
        {line.split("==")[0] for line in (ROOT / file).read_text().split() if "==" in line}
        for file in files
    ]
    names = {
        extra: {re.split("[=>]", line)[0] for line in lines}
        for extra, lines in (extras | {"": project["dependencies"]}).items()
    }
    assert names[""] | names["app"] | names["compare"] == run
    own = names["dev"] - {"rsdtr[app,compare,notebook,timm]"}
    # The figures of a notebook are those of the app, which runs with what requirements.txt pins.
    assert own | names["timm"] | (names["notebook"] - run) == dev - {"editables"}
