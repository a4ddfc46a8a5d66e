"""What an export writes beside its cores, and the proof of each file."""

from rsdtr.exports.export import export
from rsdtr.exports.verify import verify

__all__ = ["export", "verify"]
