"""`fleet`: a pool of which something may be missing; what `missing` answers is in `Control.missing`."""

import sys
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from drydock.blueprint import Binding, Pool, ResourceInfo, Setting, slot_lock


class Fleet(Pool):
    type = "ship"
    settings_schema: ClassVar = {"ships": Setting(list, "names")}

    def bindings(self) -> Iterator[Binding]:
        for name in self.settings["ships"]:
            yield Binding(name, slot_lock("ship", name))

    def activate(self, resource: ResourceInfo) -> None:
        sys.modules["behaviours.stage"].control(self.name).play("activate", f"resource:{resource.id}")

    def destroy(self, resource: ResourceInfo) -> None:
        sys.modules["behaviours.stage"].control(self.name).play("destroy", f"resource:{resource.id}")

    def missing(self, held: Collection[str]) -> Any:
        told = sys.modules["behaviours.stage"].control(self.name)
        told.play("missing", ",".join(sorted(held)))
        return told.missing
