"""The parts of the page Recover."""
