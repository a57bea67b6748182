"""`python -m drydock` is the command `drydock`."""

from .cli import main

if __name__ == "__main__":
    main()
