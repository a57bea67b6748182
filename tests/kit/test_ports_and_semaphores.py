"""`port-range` and `semaphore` pass the kit that strangers use."""

import sys
from pathlib import Path
from typing import Any

from drydock_blueprints.port_range import PortRange
from drydock_blueprints.semaphore import Semaphore
from ports import free_ports

from drydock.testing import BlueprintContract


class TestPortRange(BlueprintContract):
    kind = PortRange

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"ports": ", ".join(map(str, free_ports(3)))}


class TestSemaphore(BlueprintContract):
    kind = Semaphore

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"count": 3, "probe": [sys.executable, "-c", "print(3)"]}
