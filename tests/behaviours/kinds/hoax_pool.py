"""`hoax-pool`: a pool that does nothing, exactly as it is told; see `hoax`."""

import sys
from collections.abc import Iterator
from typing import ClassVar

from drydock.blueprint import Binding, Pool, ResourceInfo, Setting, slot_lock


class HoaxPool(Pool):
    type = "thing"
    settings_schema: ClassVar = {
        "things": Setting(list, "names; the slot lock of one is thing(NAME)"),
        "rubbish": Setting(list, "what it gives besides", []),
    }

    def bindings(self) -> Iterator[Binding]:
        for name in self.settings["things"]:
            yield Binding(name, slot_lock("thing", name))
        yield from self.settings["rubbish"]

    def activate(self, resource: ResourceInfo) -> None:
        sys.modules["behaviours.stage"].control(self.name).play("activate", f"resource:{resource.id}")

    def destroy(self, resource: ResourceInfo) -> None:
        sys.modules["behaviours.stage"].control(self.name).play("destroy", f"resource:{resource.id}")
