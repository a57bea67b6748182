"""Linux's prctl(2), as far as we need it: that a child dies with us, and that orphans come to us."""

import contextlib
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def find_prctl() -> Callable[[int, int], object]:
    """The system call, to be looked up while there is no child yet. Does nothing where there is none."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        if sys.platform == "linux":
            from ctypes import CDLL

            call = CDLL(None).prctl
            return lambda option, value: call(option, int(value), 0, 0, 0)
    return lambda *_: None
