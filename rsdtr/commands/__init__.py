"""The commands of `python -m rsdtr`, and what their options share."""
