"""A store with a kind whose hooks do what no hook should, beside a pool of hosts that has nothing to do with it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import drydock
from drydock.api import Connection, Lease

KINDS = Path(__file__).parent / "kinds"
SECONDS = 30.0


def is_there(pid: int) -> bool:
    """Whether this process runs; the dead who are not buried do not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return True


def until(true: Callable[[], Any]) -> Any:
    """What this gives as soon as it is true."""
    give_up_at = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.01)
    return found


class Yard:
    """The store, and what the hooks have noted."""

    def __init__(self, store: str, notes: Path) -> None:
        self.store, self.notes = store, notes
        self.dock = drydock.connect(store)

    def offer(self, what: str, when: str = "activate", **more: Any) -> None:
        unruly = {"kind": "unruly", "what": what, "when": when, "notes": str(self.notes), **more}
        self.dock.apply({"blueprint": {"odd": unruly, "lab": {"kind": "host-pool", "hosts": ["h1", "h2"]}}})

    def lease(self, type: str = "thing", **options: Any) -> Lease:
        lease = self.dock.lease(type, **{"wait": 0, "owner": "tester", **options})
        assert isinstance(lease, Lease)
        return lease

    def noted(self, name: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.notes / name).read_text().splitlines()
        return []

    def events(self, name: str) -> list[dict[str, Any]]:
        return [dict(e.data) for e in self.connection.events.latest(100, event=name)]

    @property
    def connection(self) -> Any:
        return self.dock._engine.store

    @property
    def server(self) -> Any:
        """The process that loads kinds, if one was started."""
        return getattr(self.dock._engine.steps.hooks, "_server", None)

    def statuses(self, table: str) -> list[str]:
        return [status for (status,) in self.connection.rows(f"SELECT status FROM {table} ORDER BY id")]

    def nobody_is_left(self) -> None:
        """All processes that hooks have noted are gone."""
        noted = [int(pid) for pid in self.noted("processes")]
        until(lambda: not any(map(is_there, noted)))

    def another(self) -> Connection:
        return drydock.connect(self.store)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def yard(store_address: str, notes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", str(KINDS))
    monkeypatch.setenv("STORE", store_address)
    yard = Yard(store_address, notes)
    yield yard
    (notes / "go").touch()
    yard.dock.close()
    for pid in map(int, yard.noted("processes")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
