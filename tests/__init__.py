"""Tests: a folder for each package of rsdtr, and what they share in support/."""
