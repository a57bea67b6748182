"""How wide the terminal is."""

import os
import sys
from contextlib import suppress

FALLBACK = 80
WIDEST_HELP, NARROWEST_HELP = 100, 50


def width() -> int:
    """The columns of the terminal, as `shutil.get_terminal_size` finds them. To load that, which can pack archives, too, would
    take a tenth of `--help`."""
    with suppress(ValueError):
        given = int(os.environ.get("COLUMNS", "0"))
        if given > 0:
            return given
    with suppress(AttributeError, ValueError, OSError):  # there is no standard output, or it is no terminal
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or FALLBACK  # type: ignore[union-attr]
    return FALLBACK


def help_width() -> int:
    """How wide a help text is."""
    return max(min(width(), WIDEST_HELP) - 2, NARROWEST_HELP)
