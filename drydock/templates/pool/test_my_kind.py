"""What every kind must do, on `my-kind`: run pytest."""

from pathlib import Path
from typing import Any

from my_kind import MyKind

from drydock.testing import BlueprintContract


class TestMyKind(BlueprintContract):
    kind = MyKind

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"names": ["one", "two"]}
