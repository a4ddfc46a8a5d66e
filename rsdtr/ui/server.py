"""The server of the app, as `make run` and `rsdtr app` start it; options are streamlit run's.

python -m rsdtr.ui.server [--server.port 8501 …]
"""

from __future__ import annotations

import sys

from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import cli

from rsdtr.system.app_folder import APP_FOLDER

APP = APP_FOLDER / "app.py"


def main() -> None:
    # As st.navigation would say, but before anybody comes: until then Streamlit looks for pages by
    # the names of the files in pages/, and tells who comes first by a link to /Layers that there is
    # no such page.
    PagesManager.uses_pages_directory = False
    cli.main(["run", str(APP), *sys.argv[1:]], prog_name="streamlit")


if __name__ == "__main__":
    main()
