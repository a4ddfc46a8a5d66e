"""`python -m rsdtr …`"""

from rsdtr.cli import cli

if __name__ == "__main__":
    cli(prog_name="python -m rsdtr")
