"""What every kind must do, on `usb-boards`."""

import sys
from pathlib import Path
from typing import Any

from usb_boards import UsbBoards

from drydock.testing import BlueprintContract


class TestUsbBoards(BlueprintContract):
    kind = UsbBoards

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"serials": ["A100", "A101"], "power_cycle": [sys.executable, "-c", "pass", "power-cycle"]}
