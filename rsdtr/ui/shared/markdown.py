"""Texts as Markdown shows them."""

from __future__ import annotations

from rsdtr.errors import RsdtrError


def plain(text: str) -> str:
    """Text for a markdown place, every character as it is: it may look like formatting.

    But for ε_p, which is εₚ on every page.
    """
    return "".join(
        f"\\{character}" if character in "\\*_`$[]<>~#:" else character
        for character in text.replace("ε_p", "εₚ")
    )


def sentence(error: RsdtrError) -> str:
    """What an error says."""
    # str() of a LookupError would put quotes around the message.
    return str(error.args[0]) if error.args else type(error).__name__
