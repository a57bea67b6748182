"""A kind as a stranger ships it: one file, one class, one entry point."""

from pathlib import Path
from typing import ClassVar

from drydock.blueprint import Binding, ConfigError, LeaseInfo, Pool, ResourceInfo, Setting, slot_lock


class UsbBoards(Pool):
    """Boards at a USB hub, by serial number."""

    type = "board"
    summary = "boards at a USB hub"
    settings_schema: ClassVar = {"serials": Setting(list, "serial numbers"), "log": Setting(str, "file for notes")}

    def bindings(self) -> list[Binding]:
        if not all(isinstance(serial, str) for serial in self.settings["serials"]):
            raise ConfigError('"serials" must be strings')
        return [Binding(s, slot_lock("usb-board", s), {"serial": s}) for s in self.settings["serials"]]

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        with Path(self.settings["log"]).open("a") as log:
            print("power-cycled", resource.name, "for", lease.owner, file=log)
