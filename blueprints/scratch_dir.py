"""`scratch-dir`: an empty folder for each lease.

    [blueprint.scratch]
    kind = "scratch-dir"
    root = "/srv/scratch"      # must hold a file .drydock-root, which says that we may delete things there
    limit = 4

A lease may ask for a label, `--attributes '{"label": "nightly"}'`: a folder is labelled when it is built and keeps its
label until it is reclaimed. The folder of a lease is made empty when the lease begins and is gone when it has ended.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from drydock.blueprint import (
    Attributes,
    Builder,
    ConfigError,
    LeaseInfo,
    Plan,
    Refused,
    ResourceInfo,
    Setting,
    check_name,
    quoted,
    slot_lock,
)

MARKER = ".drydock-root"
MOST_FOLDERS = 1000


class ScratchDir(Builder):
    """Folders `scratch-0`, `scratch-1` ... below `root`; the slot lock of one is `scratch-dir(ROOT/scratch-N)`."""

    type = "scratch-dir"
    summary = "an empty folder for each lease"
    settings_schema = {"root": Setting(str, f"the parent folder, absolute; must hold a file {MARKER}")}

    def check(self) -> None:
        if not Path(self.settings["root"]).is_absolute():
            raise ConfigError(f'"root" must be an absolute path, not {quoted(self.settings["root"])}')
        self._root()

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        if not wanted.keys() <= {"label"}:
            return
        label = {"label": check_name(wanted["label"], "label")} if "label" in wanted else {}
        root = self._root()
        for number in range(MOST_FOLDERS):
            name = f"scratch-{number}"
            path = str(root / name)
            yield Plan(name, (slot_lock("scratch-dir", path),), {"path": path, **label})

    def activate(self, resource: ResourceInfo) -> None:
        self._path(resource)

    def destroy(self, resource: ResourceInfo) -> None:
        remove(self._path(resource))

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        path = self._path(resource)
        remove(path)  # whatever a crash left behind is not this lease's
        path.mkdir(mode=0o700)

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        remove(self._path(resource))

    def _root(self) -> Path:
        return checked_root(self.settings["root"])

    def _path(self, resource: ResourceInfo) -> Path:
        # The path is worked out anew from a name of one plain part; attributes are data, and never a path to delete.
        return self._root() / check_name(resource.name, "folder")


def checked_root(given: str) -> Path:
    """The root by its one real name, or two blueprints that spell it differently would share its folders."""
    root = Path(given)
    if root.is_symlink():
        raise Refused(f"the root {quoted(root)} must not be a symbolic link")
    if not root.is_dir():
        raise ConfigError(f"there is no folder {quoted(root)}")
    if not (root / MARKER).is_file():
        raise Refused(f"the root {quoted(root)} is not ours: it has no file {MARKER}; if we may delete there, make one")
    root = root.resolve()
    for other in root.parents:
        if (other / MARKER).exists():  # a lease there could remove this root with all that is in it
            raise ConfigError(f"the root {quoted(root)} lies inside another, {quoted(other)}")
    return root


def remove(path: Path) -> None:
    """Remove the folder and all in it. What is not there is removed already; a symbolic link is never followed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for folder, folders, _ in os.walk(path):  # the last holder may have made some unreadable
        for inner in (Path(folder, name) for name in folders):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path)
