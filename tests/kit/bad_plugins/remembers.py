"""What it built it knows only as long as its process lives."""

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
        self.folder = Path(self.settings["root"]) / resource.name
        self.folder.mkdir(exist_ok=True)

    def destroy(self, resource: ResourceInfo) -> None:
        if self.folder.exists():
            self.folder.rmdir()


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
