"""`usb-boards`: boards at a USB hub, by serial number, power-cycled before the next holder.

[blueprint.hub]
kind = "usb-boards"
serials = ["A100", "A101"]
power_cycle = ["uhubctl-cycle", "--wait"]      # is given the serial number as its last word
"""

import subprocess
from collections.abc import Iterator
from typing import ClassVar

from drydock.blueprint import Binding, ConfigError, LeaseInfo, Pool, ResourceInfo, Setting, check_name, slot_lock


class UsbBoards(Pool):
    """Each serial number is one board; its slot lock is `usb-board(SERIAL)`."""

    api = 1
    type = "board"
    summary = "boards at a USB hub, power-cycled before the next holder"
    time_limit = 60.0  # seconds that a power cycle may take
    settings_schema: ClassVar = {
        "serials": Setting(list, "serial numbers of the boards"),
        "power_cycle": Setting(list, "the command that switches one off and on again; it is given the serial number"),
    }

    def check(self) -> None:
        command = self.settings["power_cycle"]
        if not command or not all(isinstance(word, str) for word in command):
            raise ConfigError('"power_cycle" must be a command, as a list of words')

    def bindings(self) -> Iterator[Binding]:
        for given in self.settings["serials"]:
            serial = check_name(given, "serials")
            yield Binding(serial, slot_lock("usb-board", serial), {"serial": serial})

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        # May come twice, and a second power cycle does no harm. A command that fails raises, and is tried again later.
        subprocess.run([*self.settings["power_cycle"], resource.name], stdin=subprocess.DEVNULL, check=True)
