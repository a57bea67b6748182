"""Two ways to tell the living from the dead, and the late from the early, that look right: each is planted, and found."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import planted
import pytest
from conftest import LAB, Clock, apply

from drydock.engine import Engine
from drydock.errors import LeaseLost
from drydock.model import Demand
from drydock.store.sqlite import SqliteStore
from drydock.testing.children import Child

#: a process that holds a lease and then lets its number go to another program: what `exec` keeps is the number alone
HOLDS = """
from drydock.engine import Engine
from drydock.model import Demand
from drydock.store.sqlite import SqliteStore
if sys.argv[2] == "planted":
    sys.path.insert(0, sys.argv[3])
    import planted, pytest
    planted.alive_by_process_number(pytest.MonkeyPatch())
engine = Engine(SqliteStore.open(sys.argv[1]))
engine.lease(Demand("host"), owner="t", wait_seconds=0)
say("holds")
hear()
os.execv("/bin/sh", ["sh", "-c", "echo replaced; read word"])
"""


def holders_after_the_number_is_anothers(engine: Engine, path: Path, how: str) -> int:
    """How many leases are left when another program has the process number of their holder."""
    apply(engine, LAB)
    with Child(HOLDS, path, how, Path(__file__).parent) as child:
        child.expect("holds")
        child.tell()
        child.expect("replaced")
        os.kill(child.pid, 0)  # there is a process of that number
        engine.tend()
        return len(engine.store.leases.live())


def test_a_lease_ends_though_another_program_has_its_holders_process_number(engine: Engine, path: Path) -> None:
    assert holders_after_the_number_is_anothers(engine, path, "as it is") == 0


def test_liveness_by_process_number_is_found(engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.alive_by_process_number(monkeypatch)
    assert holders_after_the_number_is_anothers(engine, path, "planted") == 1


@contextlib.contextmanager
def leased(path: Path, clock: Clock, uptime: Clock) -> Iterator[tuple[Engine, int]]:
    """An engine whose two clocks are moved apart, and a lease with a ttl of a minute."""
    with contextlib.closing(SqliteStore.open(str(path), clock=clock, uptime=uptime)) as store:
        engine = Engine(store)
        apply(engine, LAB)
        [lease] = engine.lease(Demand("host"), owner="t", wait_seconds=0, ttl=60.0)
        yield engine, lease.id


def is_held(engine: Engine, lease: int) -> bool:
    engine.tend()
    try:
        return engine.verify(lease).id == lease
    except LeaseLost:
        return False


def whether_it_is_held(path: Path, clock: Clock, set_by: float, passes: float) -> bool:
    uptime = Clock()
    with leased(path, clock, uptime) as (engine, lease):
        clock.forward(set_by + passes)
        uptime.forward(passes)
        return is_held(engine, lease)


@pytest.mark.parametrize("set_by", [3600.0, -3600.0])
def test_setting_the_clock_neither_ends_a_lease_with_a_ttl_nor_keeps_it(
    tmp_path: Path, clock: Clock, set_by: float
) -> None:
    assert whether_it_is_held(tmp_path / "one.db", clock, set_by, 59.0)
    assert not whether_it_is_held(tmp_path / "two.db", clock, set_by, 61.0)


@pytest.mark.parametrize(("set_by", "passes", "held"), [(3600.0, 59.0, False), (-3600.0, 61.0, True)])
def test_a_ttl_on_the_wall_clock_is_found(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, set_by: float, passes: float, held: bool
) -> None:
    planted.ttl_on_the_wall_clock(monkeypatch)
    assert whether_it_is_held(path, clock, set_by, passes) is held


def test_a_reboot_ends_what_had_to_be_renewed_though_the_uptime_is_small_again(
    path: Path, clock: Clock, connect: Callable[..., Engine]
) -> None:
    with leased(path, clock, Clock()) as (engine, lease):
        other = connect()
        other.store.boot = "the next one"
        with pytest.raises(LeaseLost):
            other.verify(lease)
        other.tend()
        assert engine.store.leases.live() == []
