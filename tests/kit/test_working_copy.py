"""Working copies pass the kit that strangers use."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drydock_blueprints.working_copy import MARKER, WorkingCopy

from drydock.testing import BlueprintContract


class TestWorkingCopy(BlueprintContract):
    kind = WorkingCopy
    wanted = {"repository.a": True, "ref": "main"}
    most_crashes = 10
    one_of_its_own_for_each_blueprint = True  # the folder of a copy has the blueprint's name in it
    most_hostile = 5

    def settings(self, folder: Path) -> dict[str, Any]:
        origin = folder.parent / "origin"
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
        for words in (["init", "-q", str(origin)], ["-C", str(origin), "commit", "-q", "--allow-empty", "-m", "x"]):
            subprocess.run(["git", *who, *words], check=True)
        (folder / MARKER).touch()
        return {"repositories": {"a": str(origin), "b": str(origin)}, "root": str(folder)}

    def leftovers(self, folder: Path) -> Iterable[str]:
        return [path.name for path in folder.iterdir() if path.name != MARKER]
