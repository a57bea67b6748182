"""What a connection records can be heard by whoever wants to tell of it: once it is true, and nothing else."""

import contextlib

import pytest

from drydock.engine import Engine
from drydock.model import Event


def heard(engine: Engine) -> list[Event]:
    found = engine.store.events.heard
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def _listening(engine: Engine) -> None:
    engine.store.events.heard = []


def test_what_was_committed_as_the_history_has_it(engine: Engine) -> None:
    with engine.store.write():
        engine.store.events.add("one", lease=7, blueprint="lab", name="h1")
        assert heard(engine) == [], "it may still be undone"
        engine.store.events.add("two", resource=3)
    assert heard(engine) == engine.store.events.latest(10)
    assert [event.event for event in heard(engine)] == ["one", "two"]


def test_not_what_was_undone_with_its_transaction(engine: Engine) -> None:
    with contextlib.suppress(KeyError), engine.store.write():
        engine.store.events.add("undone")
        raise KeyError
    with engine.store.write():
        engine.store.events.add("kept")
    assert [event.event for event in heard(engine)] == ["kept"]


def test_not_what_was_undone_in_part(engine: Engine) -> None:
    with engine.store.write():
        engine.store.events.add("before")
        with contextlib.suppress(KeyError), engine.store.attempt():
            engine.store.events.add("undone")
            raise KeyError
        with engine.store.attempt():
            engine.store.events.add("kept")
    assert [event.event for event in heard(engine)] == ["before", "kept"]
    assert heard(engine) == engine.store.events.latest(10)
