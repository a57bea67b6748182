"""It takes what the pool file says as it comes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Binding, Pool, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Pool):
    type = "folder"
    settings_schema = {"folders": Setting(list, "tables with a name and a number")}

    def bindings(self) -> Iterator[Binding]:
        for given in self.settings["folders"]:
            yield Binding(given["name"], slot_lock("folder", given["name"]), {"number": given["number"]})


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"folders": [{"name": "one", "number": 1}]}
