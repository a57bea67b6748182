"""What a move would do, and what is in its way, is told before anything is touched."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from conftest import Cli, apply, dies
from test_moving import POOL, broken, contents, hold, houses, opened, source, target

from drydock.engine import Engine
from drydock.errors import ConfigError, DrydockError, Refused, StoreDamaged, StoreError
from drydock.model import Demand, Terms
from drydock.moving import Planned, copy_store, plan_copy
from drydock.store import find_store, open_store
from drydock.store.base import Store

__all__ = ["houses", "opened", "source", "target"]


def plan(houses: tuple[str, str], **options: Any) -> Planned:
    with contextlib.closing(open_store(houses[0], read_only=True)) as old:
        place = find_store(houses[1])
        with contextlib.closing(place.store) if place.store else contextlib.nullcontext():
            return plan_copy(old, place, **options)


def is_there(address: str) -> bool:
    try:
        open_store(address, read_only=True).close()
    except DrydockError:
        return False
    return True


def test_it_tells_what_the_copy_then_does_and_changes_nothing(
    source: Store, houses: tuple[str, str], opened: Callable[..., Store]
) -> None:
    kept, bound = hold(source), hold(source, keep=False, ttl=600)
    before = contents(source)
    planned = plan(houses, freeze=True)
    assert contents(source) == before
    assert not source.is_frozen()
    assert not is_there(houses[1])
    assert not Path(houses[1]).exists()
    assert (planned.live, planned.unbound) == ([kept.id, bound.id], [bound.id])
    moved = copy_store(source, opened(houses[1]), freeze=True)
    assert (moved.copied.live, moved.copied.unbound, moved.copied.over) == (2, planned.unbound, planned.waiting)
    told = {table: number for table, number in planned.rows.items() if table != "event"}
    assert told == {table: number for table, number in moved.copied.rows.items() if table != "event"}


def test_an_empty_store_that_is_there_will_do(source: Store, target: Store, houses: tuple[str, str]) -> None:
    assert plan(houses).live == []
    assert broken(target) == []


def test_what_is_over_is_not_in_the_way(source: Store, houses: tuple[str, str], opened: Callable[..., Store]) -> None:
    other = opened(houses[0])
    dead = hold(other, keep=False)
    with other.write():
        request = other.leases.add(Demand("host"), Terms(), "tester", other.process)
    dies(other)
    planned = plan(houses)
    assert (planned.over, planned.live, planned.waiting) == ([dead.id, request.id], [], [])
    assert source.leases.get(dead.id) == dead


@pytest.mark.parametrize("options", [{}, {"freeze": True}])
def test_what_is_in_the_way_is_told_as_the_copy_would(
    source: Store, target: Store, houses: tuple[str, str], options: dict[str, Any]
) -> None:
    """One without an end but its process's."""
    held = hold(source, keep=False)
    told = []
    for do in (lambda: plan(houses, **options), lambda: copy_store(source, target, **options)):
        with pytest.raises(Refused) as refused:
            do()
        told.append(str(refused.value))
    assert told[0] == told[1]
    assert source.leases.get(held.id) == held
    assert plan(houses, freeze=True, until=source.clock() + 60).unbound == [held.id]
    with pytest.raises(ConfigError, match="5s away"):
        plan(houses, freeze=True, until=source.clock() + 1)


def test_a_store_that_is_full_or_the_same_or_damaged_is_told(
    source: Store, target: Store, houses: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is both stores"):
        plan((houses[0], houses[0]))
    with target.write():
        target.events.add("something")
    with pytest.raises(Refused, match=r"is not empty \(it has events\)"):
        plan(houses)
    hold(source)
    with source.write():
        source.run("DELETE FROM slot_lock")
    with pytest.raises(StoreDamaged, match="promises"):
        plan((houses[0], str(tmp_path / "other.db")), freeze=True)


@pytest.mark.parametrize(
    ("place", "error", "sentence"),
    [
        ("{here}/nowhere/to.db", StoreError, "no such directory"),
        ("{here}/link.db", Refused, "symbolic link"),
        ("{here}/no.db", StoreDamaged, "not a"),
        ("{here}/open/to.db", Refused, "writable by everyone"),
        ("postgresql://nobody@127.0.0.1:1/x", StoreError, "127.0.0.1"),
        ("mysql://x/y", ConfigError, "unsupported store"),
        ("", ConfigError, "is empty"),
    ],
)
def test_a_place_where_no_store_can_be_is_told(
    path: Path, place: str, error: type[DrydockError], sentence: str
) -> None:
    here = path.parent
    (here / "link.db").symlink_to("elsewhere.db")
    (here / "no.db").write_text("something else entirely, and long enough to be taken for a file of SQLite's")
    (here / "open").mkdir(mode=0o777)
    (here / "open").chmod(0o777)
    before = sorted(here.rglob("*"))
    with pytest.raises(error, match=sentence):
        find_store(place.format(here=here))
    assert sorted(here.rglob("*")) == before


def test_a_database_where_its_user_may_make_nothing_is_told(postgres_url: str) -> None:
    name = urlsplit(postgres_url).path.removeprefix("/")
    user = f"guest_{name[-12:]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{user}" LOGIN'.encode())
        connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{user}"'.encode())
    parts = urlsplit(postgres_url)
    guest = urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))
    try:
        with pytest.raises(StoreError, match="may not make one; see: GRANT CREATE ON DATABASE"):
            find_store(guest)
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"'.encode())


def test_an_old_store_is_not_brought_up_to_date_by_a_plan(path: Path) -> None:
    with contextlib.closing(open_store(str(path))) as old:
        apply(Engine(old), POOL)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreDamaged, match="has schema 1, this drydock uses"):
        plan((str(path), str(path.with_name("to.db"))))


def test_the_command_says_it(source: Store, houses: tuple[str, str]) -> None:
    cli = Cli(houses[0])
    Engine(source).lease(Demand("host"), owner="t", ttl=600)
    planned = cli("copy-store", "--plan", *houses)
    assert planned.returncode == 9
    assert "move what is held too with: --freeze" in planned.stderr
    planned = cli("copy-store", "--plan", "--freeze", *houses)
    assert planned.returncode == 0
    assert planned.stdout.splitlines()[-2:] == [
        "1 leases would go on, 0 requests that wait would be over",
        "1 of the leases would no longer end with their process, but at their end",
    ]
    assert planned.stderr.endswith(" would be made; nothing is in the way, and nothing was changed\n")
    [told] = cli("copy-store", "--plan", "--freeze", "--json", *houses).objects
    assert (told["plan"], told["frozen"], told["live"], told["unbound"], told["over"]) == (True, True, 1, [1], [])
    assert told["rows"] == {table: len(rows) for table, rows in contents(source).items()}
    assert not is_there(houses[1])
    assert not source.is_frozen()
    assert cli("copy-store", "--plan", "--thaw", houses[0]).returncode == 2
