"""A network under one's hands in a notebook: the first page of the explorer as a value."""

from rsdtr.system.extras import missing_extra

try:
    from rsdtr.notebook.explore import explore
    from rsdtr.notebook.explorer import Explorer
except ModuleNotFoundError as error:  # plotly, which the library does without
    raise missing_extra(error, "notebook") or error from None

__all__ = ["Explorer", "explore"]
