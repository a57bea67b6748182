"""A command as somebody who may not do everything, also where the tests run as root."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534

#: everything is imported first, since the interpreter may be where only root can read
UNPRIVILEGED = f"""
import importlib, os, pkgutil, sys
import drydock, drydock_blueprints, importlib.metadata, rich.table, sqlite_utils.db, tomllib
for package in (drydock, drydock_blueprints):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
from drydock.cli import main
main()
"""


class Enterable(NamedTuple):
    """A folder that everybody may enter, and the environment of a command whose store is in it."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def store(self) -> Path:
        return self.folder / "drydock.db"


@contextmanager
def enterable_folder() -> Iterator[Enterable]:
    # Not pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "theirs")
        folder.mkdir(mode=0o755)
        Path(name).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        environment = {**os.environ, "DRYDOCK_STORE": str(folder / "drydock.db"), "DRYDOCK_OWNER": "tester"}
        yield Enterable(folder, environment)
