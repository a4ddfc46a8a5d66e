"""Streamlit: what all pages share, and a folder for each page. It lives here, not in the core."""
