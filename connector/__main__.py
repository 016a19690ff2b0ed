"""`python -m connector` is the command `connector`."""

from connector.commands.entry import main

main()
