"""It puts what was asked for on a command line."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Attributes, Builder, ConfigError, Plan, ResourceInfo, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Builder):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        if "label" in wanted and not isinstance(wanted["label"], str):
            raise ConfigError("label must be text")
        yield Plan("one", (slot_lock("folder", self.settings["root"], "one"),), dict(wanted))

    def activate(self, resource: ResourceInfo) -> None:
        subprocess.run(f"echo {resource.attributes.get('label', '')}", shell=True, check=True)


class TestIt(BlueprintContract):
    kind = Bad
    wanted = {"label": "nightly"}

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
