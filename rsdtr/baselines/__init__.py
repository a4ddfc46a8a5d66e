"""The methods RSDTR is compared with, and the comparison."""
