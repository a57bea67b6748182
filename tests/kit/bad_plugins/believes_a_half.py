"""It takes a folder that is half copied for one that is ready."""

import shutil
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
        folder = Path(self.settings["root"]) / resource.name
        if not folder.exists():
            shutil.copytree(Path(self.settings["root"]) / "template", folder)

    def destroy(self, resource: ResourceInfo) -> None:
        shutil.rmtree(Path(self.settings["root"]) / resource.name, ignore_errors=True)


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        (folder / "template").mkdir()
        for name in ("a", "b"):
            (folder / "template" / name).touch()
        return {"root": str(folder)}
