"""It reckons with what was asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, Plan, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        half = wanted.get("cores", 2) // 2
        yield Plan(f"one-{half}", (slot_lock("folder", self.settings["root"], half),), dict(wanted))


class TestIt(BlueprintContract):
    kind = Bad
    wanted = {"cores": 4}

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
