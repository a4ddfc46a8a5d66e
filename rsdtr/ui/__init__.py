"""What pages share: session keys, cached calls, widgets. Streamlit lives here, not in the core."""
