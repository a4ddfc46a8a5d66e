"""`python -m rsdtr …`"""

from rsdtr.commands.cli import cli

if __name__ == "__main__":
    cli(prog_name="python -m rsdtr")
