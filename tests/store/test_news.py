"""Waiting for news loses no wake-up: between real processes, whatever happened after the last look ends the wait."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Child

from drydock.store.sqlite import SqliteStore

#: it would wait for an hour, and whoever listens loses patience long before
LISTEN = """
from drydock.store.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1])
say("open")
while True:
    order = hear()
    if order == "look":
        say(len(store.events.latest(100)))
    elif order == "wait":
        say("waiting")
        store.wait_for_news(3600.0)
        say("news", len(store.events.latest(100)))
    elif order == "write":
        with store.write():
            store.events.add("mine")
        say("written")
"""


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore.open(str(path))
    yield store
    store.close()


@pytest.fixture
def listener(store: SqliteStore, path: Path) -> Iterator[Child]:
    with Child(LISTEN, path) as child:
        child.expect("open")
        child.tell("wait")  # the first wait has nothing to compare with: it ends at once
        child.expect("waiting", "news 0")
        yield child


def happen(store: SqliteStore) -> None:
    with store.write():
        store.events.add("happened")


def test_what_happens_during_the_wait_ends_it(store: SqliteStore, listener: Child) -> None:
    listener.tell("wait")
    listener.expect("waiting")
    happen(store)
    listener.expect("news 1")


def test_what_happens_between_the_look_and_the_wait_ends_the_wait_at_once(store: SqliteStore, listener: Child) -> None:
    for number in range(3):
        listener.tell("look")
        listener.expect(str(number))
        happen(store)
        listener.tell("wait")
        listener.expect("waiting", f"news {number + 1}")


def test_what_happened_before_the_first_wait_is_not_missed(store: SqliteStore, path: Path) -> None:
    with Child(LISTEN, path) as child:
        child.expect("open")
        child.tell("look")
        child.expect("0")
        happen(store)
        child.tell("wait")
        child.expect("waiting", "news 1")


def test_a_write_of_ones_own_hides_nobody_elses(store: SqliteStore, listener: Child) -> None:
    happen(store)
    listener.tell("write")
    listener.expect("written")
    listener.tell("wait")
    listener.expect("waiting", "news 2")


def test_without_news_the_wait_ends_when_its_time_is_up(store: SqliteStore) -> None:
    store.wait_for_news(0.0)
    store.wait_for_news(0.01)
    assert store.events.latest(1) == []
