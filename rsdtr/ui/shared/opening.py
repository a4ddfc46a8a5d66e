"""What every page imports before anything else of this program: all that any page needs.

A server draws each visitor's page in a thread of its own. Where two threads import the modules of
one package in different orders, each waits for the other, and Python ends that by handing one of
them a module that is half made: visitors who came at once to a server just started got an
ImportError. Here whoever comes first imports them all, and the others wait for this one module.
"""

from importlib import import_module
from pkgutil import walk_packages

import rsdtr.charts
import rsdtr.learn
import rsdtr.ui
from rsdtr.ui.shared.frame import page

__all__ = ["page"]

for package in (rsdtr.charts, rsdtr.learn, rsdtr.ui):
    for found in walk_packages(package.__path__, f"{package.__name__}."):
        import_module(found.name)
