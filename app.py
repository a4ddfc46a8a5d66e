"""The frame of every page: which pages there are, who is let in, and what becomes of an error.

Streamlit runs this script for whatever page is asked for, and this script runs the page's.
"""

from pathlib import Path

import streamlit as st

from rsdtr.ui.shared import address
from rsdtr.ui.shared.frame import ICON, frame, import_for, log_in

# Without icons of their own: Streamlit makes a page's icon that of the tab, and fetches the picture
# of a named one from another host.
PAGES = ("Explore", "Layers", "Recover", "Compare", "Export", "ONNX", "Learn")
FILES = {"ONNX": "onnx_file"}  # else a module of that name would hide the library's
scripts = {
    name: Path(__file__).with_name("pages") / f"{FILES.get(name, name.lower())}.py"
    for name in PAGES
}
pages = [
    st.Page(script, title=name, url_path=name, default=name == "Explore")
    for name, script in scripts.items()
]

# Where the server's secrets have an [auth] section, a page is for those who have logged in.
# Streamlit tells whether they have; without that section it tells nothing, and everybody is in.
let_in = st.user.get("is_logged_in", True)
address.arrive()
page = st.navigation(pages, position="top" if let_in else "hidden")
st.set_page_config(page_title=f"{page.title} · RSDTR Explorer", page_icon=ICON, layout="wide")
if let_in:
    with frame(page.title):
        import_for(scripts[page.title])
        page.run()
else:
    log_in()
