"""`python -m rsdtr …`"""

from rsdtr.commands.cli import main

if __name__ == "__main__":
    main("python -m rsdtr")
