"""`my-kind`: things that are there already, by name.

[blueprint.lab]
kind = "my-kind"
names = ["one", "two"]
"""

from collections.abc import Iterator
from typing import ClassVar

from drydock.blueprint import Binding, LeaseInfo, Pool, ResourceInfo, Setting, check_name, slot_lock


class MyKind(Pool):
    """Each name of the list is one thing; its slot lock is `my-kind(NAME)`."""

    api = 1
    type = "my-kind"
    summary = "things that are there already, by name"
    settings_schema: ClassVar = {"names": Setting(list, "the names of the things")}

    def bindings(self) -> Iterator[Binding]:
        for given in self.settings["names"]:
            name = check_name(given, "names")
            yield Binding(name, slot_lock("my-kind", name), {"serial": name})

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        # Reset the thing here, so that the next holder finds it as this one did. It may come twice.
        pass
