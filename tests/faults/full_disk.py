"""What can still be done on a file system on which there is not one byte left.

Run as a program, `python -m faults.full_disk FOLDER`, with a small file system of its own mounted at FOLDER; prints one
JSON object: what each command on the full disk came to, and what there was when there was room again.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from behaviours.promises import broken_promises
from behaviours.stage import KINDS, lease
from conftest import Cli

from drydock.config import parse_pool
from drydock.engine import Engine
from drydock.errors import DrydockError
from drydock.store.sqlite import SqliteStore

HOSTS = 40
POOL = {
    "blueprint": {
        "lab": {"kind": "host-pool", "hosts": [f"h{n}" for n in range(HOSTS)]},
        "hoax": {"kind": "hoax", "limit": 2},
    }
}
ENVIRONMENT = {"DRYDOCK_BLUEPRINTS": str(KINDS)}


class Hog:
    """Somebody who takes all that is free."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def eat(self) -> None:
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(self._file, b"x" * size)

    def go(self) -> None:
        os.close(self._file)
        self.path.unlink()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Engine]:
    with contextlib.closing(SqliteStore.open(str(path))) as store:
        yield Engine(store, environment=ENVIRONMENT)


def outcome(engine: Engine, id: int) -> str:
    try:
        return str(engine.release(id))
    except DrydockError as error:
        return str(error)


def in_vain(engine: Engine) -> str:
    try:
        return f"lease {lease(engine, 'host', wait=0.0).id}"
    except DrydockError as error:
        return str(error)


def main(folder: Path) -> dict[str, Any]:
    path = folder / "drydock.db"
    cli = Cli(str(path))
    cli.environment |= ENVIRONMENT
    with opened(path) as engine:
        engine.apply(parse_pool(POOL, "pool"))
        hosts = [lease(engine, "host", wait=0.0).id for _ in range(HOSTS - 1)]
        built = [lease(engine, "hoax", wait=0.0).id for _ in range(2)]
    told: dict[str, Any] = {}
    hog = Hog(folder / "hog")
    hog.eat()

    # Commands: each opens the store anew, and is the only one that has it open.
    told["lease"] = [(ran := cli("lease", "--type", "host", "--no-wait")).returncode, ran.stderr]
    hog.eat()
    told["leases"] = len(cli("leases", "--json").objects)
    hog.eat()
    told["commands"] = []
    for id in (hosts.pop(), built.pop(), hosts.pop()):
        ran = cli("release", str(id))
        told["commands"] += [ran.returncode, ran.stderr]
        hog.eat()
    told["doctor"] = cli("doctor").returncode
    hog.eat()

    # A process that keeps it open, and whose log grows.
    with opened(path) as engine:
        hog.eat()
        told["released"] = []
        for id in (built.pop(), *hosts[5:]):
            told["released"] += [outcome(engine, id)]
            hog.eat()
        told["in vain"] = in_vain(engine)
        told["broken"] = broken_promises(engine.store, settled=True)

    hog.go()
    with opened(path) as engine:
        told["reserve"] = path.with_name("drydock.db.reserve").stat().st_size
        told["kept"] = [held.id for held in engine.store.leases.live()] == hosts[:5]
        told["in time"] = in_vain(engine)
        told["broken"] += broken_promises(engine.store, settled=True)
    return told


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
