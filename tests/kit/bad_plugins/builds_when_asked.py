"""It builds before anybody wants it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, Plan, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        (Path(self.settings["root"]) / "one").mkdir(exist_ok=True)
        yield Plan("one", (slot_lock("folder", self.settings["root"]),))


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
