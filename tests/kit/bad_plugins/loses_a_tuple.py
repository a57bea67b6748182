"""Its attributes come back from JSON as something else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drydock.blueprint import Binding, Pool, Setting, slot_lock
from drydock.testing import BlueprintContract


class Bad(Pool):
    type = "folder"
    settings_schema = {"root": Setting(str, "where the folders are")}

    def bindings(self) -> Iterator[Binding]:
        yield Binding("one", slot_lock("folder", "one"), {"size": (2, 3)})


class TestIt(BlueprintContract):
    kind = Bad

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"root": str(folder)}
