"""`hoax`: a kind that does nothing, exactly as it is told.

What it offers comes from its settings. How its hooks behave comes, inside the test's own process, from the `Control`
of the same name in `behaviours.stage`; in another process it comes from its settings: `log` is a file that is told of
every call, and a hook that has a named pipe in `pipes` stops there until the test has opened and closed it.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from drydock.blueprint import Attributes, Builder, LeaseInfo, Plan, ResourceInfo, Setting, SlotLock, slot_lock


class Hoax(Builder):
    type = "hoax"
    summary = "nothing at all, as it is told"
    settings_schema: ClassVar = {
        "plans": Setting(int, "how many plans it yields", 3),
        "flavors": Setting(list, "the flavors it can make; none: only unflavored ones", []),
        "slot_locks": Setting(
            list, 'keys, perhaps "KEY*SLOTS"; {name}, {n} and {flavor} are filled in', ["hoax({name})"]
        ),
        "lease_locks": Setting(list, "what each lease needs besides its seat, written in the same way", []),
        "log": Setting(str, "a file that is told of every call", ""),
        "pipes": Setting(dict, "a named pipe to stop at, for each hook that shall stop", {}),
        "fail_in": Setting(list, "hooks that raise", []),
        "rubbish": Setting(list, "what it yields in place of plans", []),
    }
    grace = 0.0

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        self._play("plans", self.name)
        flavor = wanted.get("flavor", "")
        if flavor and flavor not in self.settings["flavors"]:
            return
        yield from self.settings["rubbish"]
        for n in range(self.settings["plans"]):
            name = f"{self.name}.{flavor or 'plain'}.{n}"
            words = {"name": name, "n": n, "flavor": flavor or "plain"}
            yield Plan(
                name,
                tuple(_lock(key, words) for key in self.settings["slot_locks"]),
                {"flavor": flavor} if flavor else {},
                tuple(_lock(key, words) for key in self.settings["lease_locks"]),
            )

    def activate(self, resource: ResourceInfo) -> None:
        self._play("activate", f"resource:{resource.id}")

    def destroy(self, resource: ResourceInfo) -> None:
        self._play("destroy", f"resource:{resource.id}")

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        self._play("activate_lease", f"lease:{lease.id}")

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        self._play("destroy_lease", f"lease:{lease.id}")

    def _play(self, hook: str, about: str) -> None:
        if "behaviours.stage" in sys.modules:
            sys.modules["behaviours.stage"].control(self.name).play(hook, about)
        self._log(f"enter {hook} {about}")
        if hook in self.settings["pipes"]:
            Path(self.settings["pipes"][hook]).read_text()  # the test opens it: we are there; it closes it: go on
        if hook in self.settings["fail_in"]:
            raise RuntimeError(f"{hook} fails as told")
        self._log(f"leave {hook} {about}")

    def _log(self, line: str) -> None:
        if self.settings["log"]:
            file = os.open(self.settings["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{line}\n".encode())
            os.close(file)


def _lock(text: str, words: dict[str, object]) -> SlotLock:
    key, star, slots = text.format(**words).partition("*")
    return slot_lock(key).any_of(int(slots)) if star else slot_lock(key)
