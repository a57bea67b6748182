"""Its plans need no slot lock."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, Plan, ResourceInfo, Setting
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        yield Plan("one", ())

    def activate(self, resource: ResourceInfo) -> None:
        (Path(self.settings["root"]) / resource.name).mkdir(exist_ok=True)

    def destroy(self, resource: ResourceInfo) -> None:
        shutil.rmtree(Path(self.settings["root"]) / resource.name, ignore_errors=True)


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
