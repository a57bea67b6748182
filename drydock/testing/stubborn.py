"""A command that only SIGKILL ends, and that writes down when it lives: to see that it was stopped in time.

`CODE` is for `python -c`; its argument is the file that it writes to. The clock is the machine's, so that the moments of
several processes, and of a server on this machine, can be compared.
"""

import os
from pathlib import Path

CODE = """
import os, signal, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def say(word):
    os.write(file, f"{word} {time.time()!r}\\n".encode())
signal.signal(signal.SIGTERM, lambda *_: say("asked"))
while True:
    say("lives")
    time.sleep(0.002)
"""


def moments(file: Path, word: str) -> list[float]:
    """When it said this: `lives`, or `asked` to end."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return [float(moment) for said, moment in lines if said == word]


def guard_of(run: int) -> int:
    """The guard of this `drydock run`: the process beside its command that leads a session of its own. Linux alone."""
    children = Path(f"/proc/{run}/task/{run}/children").read_text().split()
    [guard] = [int(pid) for pid in children if os.getsid(int(pid)) == int(pid)]
    return guard
