"""`python -m connector` is the command `connector`."""

from connector.commands.cli import main

main()
