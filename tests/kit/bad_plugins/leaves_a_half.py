"""What it prepares beside the thing is found by no later hook."""

import shutil
import tempfile
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
        half = Path(tempfile.mkdtemp(dir=self.settings["root"]))
        shutil.rmtree(Path(self.settings["root"]) / resource.name, ignore_errors=True)
        half.rename(Path(self.settings["root"]) / resource.name)

    def destroy(self, resource: ResourceInfo) -> None:
        shutil.rmtree(Path(self.settings["root"]) / resource.name, ignore_errors=True)


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
