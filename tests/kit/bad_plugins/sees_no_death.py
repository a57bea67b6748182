"""It looks, and sees what it hopes for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, Gone, Plan, ResourceInfo, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        yield Plan("one", (slot_lock("folder", self.settings["root"], "one"),))

    def activate(self, resource: ResourceInfo) -> None:
        (Path(self.settings["root"]) / resource.name).mkdir(exist_ok=True)

    def destroy(self, resource: ResourceInfo) -> None:
        if (Path(self.settings["root"]) / resource.name).exists():
            (Path(self.settings["root"]) / resource.name).rmdir()

    def observe(self, resource: ResourceInfo) -> None:
        if not Path(self.settings["root"]).exists():
            raise Gone("there is no folder")


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
