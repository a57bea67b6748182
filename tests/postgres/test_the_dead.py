"""A process that was killed leaves the row that said that it lives. It is dropped, but never one that somebody may need."""

from collections.abc import Callable, Iterator

import pytest
from conftest import LAB, apply

from drydock.engine import Engine
from drydock.forgetting import ROWS_A_STEP, Forgetting
from drydock.model import Demand
from drydock.store import open_store, postgres
from drydock.store.postgres import PostgresStore
from drydock.testing.children import Child

#: a name that no machine has
DEAD = "0.0.0.{:012x}"


@pytest.fixture
def url(new_postgres_store: Callable[[], str]) -> str:
    return new_postgres_store()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    yield store
    store.close()


def seconds_since_the_start(store: PostgresStore) -> float:
    query = "SELECT EXTRACT(EPOCH FROM clock_timestamp() - pg_postmaster_start_time())::float8"
    return float(store.rows(query)[0][0])


@pytest.fixture(autouse=True)
def soon(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was last heard of when the server was started is long dead."""
    monkeypatch.setattr(postgres, "LONG_DEAD_SECONDS", seconds_since_the_start(store) / 2)


def die(store: PostgresStore, *numbers: int) -> None:
    """These processes told that they live, at the beginning of time."""
    with store.write():
        for number in numbers:
            store.run("INSERT INTO process (name, beat) VALUES (:name, 0)", name=DEAD.format(number))


def known(store: PostgresStore) -> list[str]:
    return sorted(name for (name,) in store.rows("SELECT name FROM process"))


def forget(store: PostgresStore) -> int:
    """One whole pass; return how many steps it took."""
    forgetting, steps = Forgetting(store, None), 1
    while forgetting.step():
        steps += 1
    return steps


def test_the_rows_of_the_long_dead_go_in_small_steps_and_those_of_the_living_stay(store: PostgresStore) -> None:
    with store.write():
        store.rows("SELECT 1")
    alive = known(store)
    assert alive == [store.process]
    die(store, *range(2 * ROWS_A_STEP + 1))
    assert forget(store) == 4
    assert known(store) == alive


def test_who_could_not_tell_since_the_server_was_down_is_not_long_dead(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(store, 1)
    monkeypatch.setattr(postgres, "LONG_DEAD_SECONDS", 2 * seconds_since_the_start(store) + 60)
    forget(store)
    assert DEAD.format(1) in known(store)


@pytest.mark.parametrize(
    ("named", "over"),
    [
        ("UPDATE lease SET process = :name", "UPDATE lease SET status = 'destroyed'"),
        ("UPDATE lease SET worker = :name, status = 'released'", "UPDATE lease SET worker = NULL"),
        ("UPDATE resource SET worker = :name, status = 'released'", "UPDATE resource SET worker = NULL"),
    ],
)
def test_who_is_named_by_what_is_not_over_stays_until_it_is(store: PostgresStore, named: str, over: str) -> None:
    engine = Engine(store)
    apply(engine, LAB)
    engine.lease(Demand("host"), owner="t", keep=True)
    die(store, 1, 2)
    with store.write():
        store.run(named, name=DEAD.format(1))
    forget(store)
    assert DEAD.format(1) in known(store)
    assert DEAD.format(2) not in known(store)
    with store.write():
        store.run(over)
    forget(store)
    assert DEAD.format(1) not in known(store)


def test_a_killed_process_is_forgotten_with_its_lease(store: PostgresStore, url: str) -> None:
    engine = Engine(store)
    apply(engine, LAB)
    code = "import drydock\nlease = drydock.connect(sys.argv[1]).lease('host')\nsay('held')\nhear()"
    with Child(code, url) as child:
        child.expect("held")
        child.kill()
    [(dead,)] = store.rows("SELECT process FROM lease")
    with store.write():
        store.run("UPDATE process SET beat = 0 WHERE name = :name", name=dead)
    engine.reap()
    assert dead in known(store)
    forget(store)
    assert dead not in known(store)
    assert [lease.status for lease in store.leases.live()] == []


def test_whoever_comes_by_does_it(store: PostgresStore, url: str) -> None:
    die(store, 1)
    Engine(store).tend()
    assert DEAD.format(1) not in known(store)
