"""It waits for an answer that nobody gives."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, Plan, ResourceInfo, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        yield Plan("one", (slot_lock("folder", self.settings["root"], "one"),))

    def activate(self, resource: ResourceInfo) -> None:
        threading.Event().wait()


class TestIt(BlueprintContract):
    kind = Bad
    patience = 1.0

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
