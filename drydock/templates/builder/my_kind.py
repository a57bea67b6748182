"""`my-kind`: a folder, built when somebody asks for it.

[blueprint.lab]
kind = "my-kind"
root = "/srv/my-kind"      # an empty folder that belongs to this kind alone
limit = 4
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from drydock.blueprint import (
    Attributes,
    Builder,
    ConfigError,
    LeaseInfo,
    Plan,
    ResourceInfo,
    Setting,
    check_name,
    quoted,
    slot_lock,
)

MOST = 100


class MyKind(Builder):
    """Folders `my-kind-0`, `my-kind-1` ... below `root`; the slot lock of one is `my-kind(ROOT/my-kind-N)`."""

    api = 1
    type = "my-kind"
    summary = "a folder, built when somebody asks for it"
    settings_schema: ClassVar = {"root": Setting(str, "the parent folder, absolute, which belongs to this kind alone")}

    def check(self) -> None:
        root = Path(self.settings["root"])
        if not root.is_absolute() or not root.is_dir():
            raise ConfigError(f'"root" must be the absolute path of a folder, not {quoted(root)}')

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        if wanted:
            return  # nothing that anybody could ask for makes a difference
        for number in range(MOST):
            path = self._path(f"my-kind-{number}")
            yield Plan(path.name, (slot_lock("my-kind", path),), {"path": str(path)})

    def activate(self, resource: ResourceInfo) -> None:
        self._path(resource.name).mkdir(exist_ok=True)

    def destroy(self, resource: ResourceInfo) -> None:
        remove(self._path(resource.name))

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        path = self._path(resource.name)
        remove(path)
        path.mkdir(exist_ok=True)  # empty, for the next holder

    def _path(self, name: str) -> Path:
        # From a name of one plain part; attributes are data, and never a path to delete.
        return Path(self.settings["root"]).resolve() / check_name(name, "folder")


def remove(path: Path) -> None:
    """Remove the folder and all in it; what is not there is removed already."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
