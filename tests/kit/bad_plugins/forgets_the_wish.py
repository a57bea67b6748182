"""Its attributes lack what was asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, Plan, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        yield Plan("one", (slot_lock("folder", self.settings["root"], "one"),), {"path": "one"})


class TestIt(BlueprintContract):
    kind = Bad
    wanted = {"label": "nightly"}

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
