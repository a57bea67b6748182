"""What can still be done on a file system on which there is not one byte left.

Run as a program, `python -m faults.full_disk FOLDER`, with a small file system of its own mounted at FOLDER; prints one
JSON object: what each command on the full disk came to, and what there was when there was room again.
"""

import contextlib
import json
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
from drydock.testing.hog import Hog

HOSTS = 80
MANY = [f"h{n}" for n in range(4000)]
POOL = {
    "blueprint": {
        "lab": {"kind": "host-pool", "hosts": [f"h{n}" for n in range(HOSTS)]},
        "hoax": {"kind": "hoax", "limit": 2},
    }
}
ENVIRONMENT = {"DRYDOCK_BLUEPRINTS": str(KINDS)}


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
    with opened(folder / "young.db") as engine:  # all that it holds is in its log
        engine.apply(parse_pool({"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h"]}}}, "pool"))
        first = lease(engine, "host", wait=0.0)
        engine.apply(parse_pool({"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h", *MANY]}}}, "pool"))
        with Hog(folder / "hog"):
            told["young"] = outcome(engine, first.id)
    with Hog(folder / "hog"):
        # Commands: each opens the store anew, and is the only one that has it open.
        told["lease"] = [(ran := cli("lease", "--type", "host", "--no-wait")).returncode, ran.stderr]
        told["leases"] = len(cli("leases", "--json").objects)
        told["commands"] = []
        for id in (hosts.pop(), built.pop(), *(hosts.pop() for _ in range(8))):
            ran = cli("release", str(id))
            told["commands"] += [ran.returncode, ran.stderr]
        told["doctor"] = cli("doctor").returncode

        # A process that keeps it open, and whose log grows.
        with opened(path) as engine:
            with opened(path) as other:
                told["beside it"] = [outcome(other, hosts.pop())]
            told["beside it"] += [str(cli("release", str(hosts.pop())).returncode == 0)]
            told["released"] = [outcome(engine, id) for id in (built.pop(), *hosts[5:])]
            told["in vain"] = in_vain(engine)
            told["less"] = [found.sentence for found in engine.store.health() if found.rule == "reserve"]
            told["broken"] = broken_promises(engine.store, settled=True)

    with opened(path) as engine:
        told["reserve"] = path.with_name("drydock.db.reserve").stat().st_size
        told["kept"] = [held.id for held in engine.store.leases.live()] == hosts[:5]
        told["in time"] = in_vain(engine)
        told["enough"] = [found.rule for found in engine.store.health() if found.rule == "reserve"]
        told["broken"] += broken_promises(engine.store, settled=True)
    return told


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
