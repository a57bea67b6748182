"""A process tells that it lives, whatever happens, and is told how long it is believed."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import LAB, until
from wire import Wire

import drydock
from drydock.api import Lease
from drydock.engine import Engine
from drydock.errors import LeaseLost, StoreAway, StoreError
from drydock.model import Demand
from drydock.store import open_store
from drydock.store.heart import Heart
from drydock.store.postgres import LIFE_SECONDS, PostgresStore
from drydock.uptime import uptime

LONG = 3600.0


@pytest.fixture
def postgres_store(new_postgres_store: Callable[[], str]) -> str:
    return new_postgres_store()


@pytest.fixture
def wire(postgres_store: str) -> Iterator[Wire]:
    with Wire(postgres_store) as wire:
        yield wire


def opened(url: str) -> PostgresStore:
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    return store


@pytest.fixture
def store(wire: Wire) -> Iterator[PostgresStore]:
    """One behind the wire."""
    store = opened(wire.url)
    yield store
    wire.go_on()
    store.close()


def test_it_beats_again_and_again_while_the_main_thread_is_busy() -> None:
    beats = threading.Semaphore(0)
    heart = Heart(beats.release, 0.001)
    for _ in range(3):
        assert beats.acquire(timeout=60)
    heart.stop()


@pytest.mark.parametrize("trouble", [StoreAway("away"), RuntimeError("a bug")])
def test_after_a_beat_that_failed_the_next_comes_soon_whatever_the_reason_was(trouble: Exception) -> None:
    tried = threading.Semaphore(0)
    first = [0.001, LONG]

    def beat() -> None:
        heart._seconds = LONG
        tried.release()
        raise trouble

    heart = Heart(beat, first[0])
    assert tried.acquire(timeout=60)
    assert tried.acquire(timeout=60), "only the pause after a failure is as short"
    heart.stop()


def test_who_has_written_nothing_is_believed_for_ever_and_who_has_for_its_life(postgres_store: str) -> None:
    store = opened(postgres_store)
    assert store.life_left() is None
    with store.write():
        store.rows("SELECT 1")
    left = store.life_left()
    assert left is not None
    assert 0 < left <= LIFE_SECONDS


def test_life_counts_from_before_the_beat_was_sent(store: PostgresStore, wire: Wire) -> None:
    with store.write():
        store.rows("SELECT 1")
    wire.stall()
    beating = threading.Thread(target=store.beat)
    beating.start()
    assert wire.silenced.wait(60)
    sent = uptime()
    wire.go_on()
    beating.join()
    left = store.life_left()
    assert left is not None
    assert uptime() + left <= sent + LIFE_SECONDS


def test_a_connection_that_is_made_anew_tells_at_once(store: PostgresStore, wire: Wire, postgres_store: str) -> None:
    observer = opened(postgres_store)
    with store.write():
        store.rows("SELECT 1")
    assert store._heart is not None
    store._heart.stop()
    with observer.write():  # as a server may that has crashed
        observer.run("DELETE FROM process WHERE name = :name", name=store.process)
    wire.cut()
    store.version()
    assert observer.rows("SELECT name FROM process WHERE name = :name", name=store.process) == [(store.process,)]


def test_the_queue_of_writers_does_not_put_the_clock_ahead(postgres_store: str) -> None:
    """Or who has waited long for its turn to renew believes that its time is up."""
    first, second = opened(postgres_store), opened(postgres_store)

    def write() -> None:
        with second.write():
            second.rows("SELECT 1")

    writing = threading.Thread(target=write)
    with first.write():
        first.rows("SELECT 1")  # its turn begins with this
        writing.start()
        until(lambda: bool(first.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")))
        since = time.monotonic()
        while time.monotonic() < since + 2:
            first.rows("SELECT 1")
    queued = time.monotonic() - since
    writing.join()
    assert second.clock() - time.time() < queued


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(store: PostgresStore, wire: Wire) -> None:
    store.patience_seconds = -4.5  # with what is granted to an answer in any case: half a second
    wire.stall()
    with pytest.raises(StoreError, match=r"cannot be reached|no answer"):
        store.version()


def test_a_holder_that_cannot_be_heard_is_told_by_verify_and_renew_once_others_may_have_it(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drydock.connect(wire.url) as dock:
        dock.apply(LAB)
        bound, store = dock.lease("host", wait=0), dock._engine.store
        assert isinstance(bound, Lease)
        store.patience_seconds = -4.5
        wire.stall()
        for ask in (bound.verify, bound.renew):
            with pytest.raises(StoreError):
                ask()
        monkeypatch.setattr("drydock.store.postgres.LIFE_SECONDS", 0.0)
        for ask in (bound.verify, bound.renew):
            with pytest.raises(LeaseLost, match="others may have it"):
                ask()
        monkeypatch.undo()
        wire.go_on()
        store.patience_seconds = 30.0
        bound.verify()
        bound.release()


def test_who_was_not_heard_of_for_its_life_is_dead_to_others_and_the_server_being_down_does_not_count(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    engine = Engine(opened(postgres_store))
    with drydock.connect(postgres_store) as dock:
        dock.apply(LAB)
    engine.lease(Demand("host"), owner="me", wait_seconds=0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("elsewhere")))
    other = opened(postgres_store)
    assert other.is_alive(engine.store.process)
    with other.write():  # as if it had been silent
        other.run("UPDATE process SET beat = beat - 31")
    other._alive_until.clear()
    [(started,)] = other.rows("SELECT EXTRACT(EPOCH FROM pg_postmaster_start_time())::float8")
    assert other.is_alive(engine.store.process) is (other.clock() < started + LIFE_SECONDS)
    monkeypatch.setattr("drydock.store.postgres._STARTED", "0::float8")
    other._alive_until.clear()
    assert not other.is_alive(engine.store.process)
