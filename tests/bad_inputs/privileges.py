"""A command as somebody who may not do everything, also where the tests run as root."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534

#: The interpreter may be where only root can read, so all that the command imports is imported first: the modules that
#: there are, and what it takes to run it once on a store that is thrown away.
UNPRIVILEGED = f"""
import contextlib, importlib, io, os, pkgutil, sys, tempfile
import drydock, drydock_blueprints, sqlite_utils.db
for package in (drydock, drydock_blueprints):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
drydock.discovery.describe_kinds()
if os.geteuid() == 0:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with contextlib.redirect_stderr(io.StringIO()):
            drydock.cli.run(["--store", folder + "/x.db", *sys.argv[1:]])
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
drydock.cli.main()
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
