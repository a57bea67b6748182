"""`plain`: a builder without any hook, so that whatever it offers is there and gone at once; each lease needs a licence."""

from collections.abc import Iterator
from typing import ClassVar

from drydock.blueprint import Attributes, Builder, Plan, Setting, slot_lock


class Plain(Builder):
    type = "plain"
    settings_schema: ClassVar = {
        "plans": Setting(int, "how many it yields", 3),
        "licence": Setting(bool, "whether a lease needs one", False),
    }
    grace = 0.0

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        locks = (slot_lock("licence"),) if self.settings["licence"] else ()
        for n in range(self.settings["plans"]):
            yield Plan(f"{self.name}.{n}", (slot_lock("plain", self.name, n),), dict(wanted), locks)
