"""The stage; after each scenario every global invariant is asserted."""

from collections.abc import Callable, Iterator

import pytest
from conftest import Clock

from drydock import request, tending

from .stage import Stage


def _played(address: str, clock: Callable[[], float] | None, *, hooks_seen: bool) -> Iterator[Stage]:
    stage = Stage(address, clock)
    stage.hooks_seen = hooks_seen
    yield stage
    stage.close()
    try:
        stage.keep_promises()
    finally:
        stage.shut()


@pytest.fixture
def stage(store_address: str, clock: Clock) -> Iterator[Stage]:
    """A stage whose time the test moves."""
    yield from _played(store_address, clock, hooks_seen=True)


@pytest.fixture
def open_air(store_address: str) -> Iterator[Stage]:
    """A stage with the world's own clock, which it shares with real processes."""
    yield from _played(store_address, None, hooks_seen=False)


@pytest.fixture
def nobody_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not woken sleeps for ever."""
    monkeypatch.setattr(request, "LOOK_EVERY_SECONDS", 3600.0)
    monkeypatch.setattr(tending, "ROUND_SECONDS", 3600.0)
    monkeypatch.setattr(tending, "WATCH_SECONDS", 3600.0)
