"""A clock that nobody sets: seconds since the machine was started, sleep included, and which start that was.

Where the kernel does not tell the start (it does on Linux), the id is empty and only the seconds count.
"""

import functools
import time

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Seconds since the machine was started."""
    return time.clock_gettime(_CLOCK)


@functools.cache
def boot() -> str:
    """The id of this start of the machine."""
    try:
        with open(_BOOT_ID) as file:
            return file.read(8)  # enough to tell two starts of one machine apart
    except OSError:
        return ""
