"""`semaphore`: so many of something that is only counted, such as the seats of a licence.

    [blueprint.matlab]
    kind = "semaphore"
    type = "licence"           # what is asked for: drydock lease --type licence
    count = 5
    probe = ["/usr/local/bin/matlab-seats", "--total"]      # optional

The probe is a program that prints how many there really are outside just now, one whole number; those that are leased
here count among them. It is asked every minute (`observe_every = "10s"` for oftener), and what there is less than
`count` is withheld: first what nobody holds. Whoever holds one keeps it, and more may be held than there are until
enough have been given back. A probe that fails, or says anything but a number, changes nothing: what was withheld
stays withheld, and the log tells why.
"""

import re
import subprocess
from collections.abc import Collection, Iterator

from drydock.blueprint import Binding, ConfigError, Pool, Setting, quoted, slot_lock

MOST = 100_000
LONGEST_ANSWER_BYTES = 100

_NUMBER = re.compile(rb"\s*([0-9]{1,18})\s*")


class ProbeFailed(Exception):
    """The probe has not said how many there are."""


class Semaphore(Pool):
    """Each of them is a binding `BLUEPRINT-N`; its slot lock is `semaphore(BLUEPRINT, N)`."""

    summary = "so many of something that is only counted"
    settings_schema = {
        "count": Setting(int, f"how many there are, 1 to {MOST}"),
        "probe": Setting(list, "a program and its arguments; it prints how many there really are", []),
    }
    time_limit = 30.0

    def check(self) -> None:
        if not 1 <= self.settings["count"] <= MOST:
            raise ConfigError(f'"count" must be a whole number from 1 to {MOST}, not {quoted(self.settings["count"])}')
        probe = self.settings["probe"]
        for word in probe:
            if not isinstance(word, str) or "\0" in word:
                raise ConfigError(f'"probe" must be a list of strings, and {quoted(word)} may not be one of them')
        if probe and not probe[0]:
            raise ConfigError('"probe" must begin with a program')

    def bindings(self) -> Iterator[Binding]:
        for number in range(1, self.settings["count"] + 1):
            yield Binding(f"{self.name}-{number}", slot_lock("semaphore", self.name, number))

    def missing(self, held: Collection[str]) -> list[str]:
        if not self.settings["probe"]:
            return []
        count = self.settings["count"]
        held = frozenset(held)
        last_first = [f"{self.name}-{number}" for number in range(count, 0, -1)]
        idle_first = sorted(last_first, key=held.__contains__)
        return idle_first[: max(0, count - self._there_are())]

    def _there_are(self) -> int:
        probe = self.settings["probe"]
        try:
            # What it writes to stderr goes to the log of this hook.
            with subprocess.Popen(probe, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:  # noqa: S603
                assert process.stdout is not None
                answer = process.stdout.read(LONGEST_ANSWER_BYTES + 1)
        except OSError as error:
            raise ProbeFailed(f"the probe {quoted(probe[0])} cannot be run: {error.strerror}") from error
        if process.returncode:
            how = (
                f"exited with {process.returncode}"
                if process.returncode > 0
                else f"died of signal {-process.returncode}"
            )
            raise ProbeFailed(f"the probe {quoted(probe[0])} {how}")
        found = _NUMBER.fullmatch(answer)
        if not found:
            raise ProbeFailed(
                f"the probe {quoted(probe[0])} must print one whole number, not {quoted(answer.decode(errors='replace'))}"
            )
        return int(found[1])
