"""`python -m drydock` is the command `drydock`."""

from .cli import main

main()
