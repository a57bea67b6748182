"""What a statement answers does not depend on the way that the server finds the answer."""

import contextlib
from collections.abc import Callable

import pytest

from drydock.slots import slot_lock
from drydock.store import open_store

WAYS = ["enable_nestloop", "enable_hashjoin", "enable_mergejoin"]


@pytest.mark.parametrize("way", WAYS)
def test_the_lowest_free_slot_is_taken(new_postgres_store: Callable[[], str], way: str) -> None:
    """Joined with what is taken in another order, slots would come in that order, or in none."""
    seats, others = slot_lock("seat").any_of(12), [slot_lock("seat").slot(n) for n in (0, 1, 3)]
    with contextlib.closing(open_store(new_postgres_store())) as store:
        for other in WAYS:  # left alone it is the only one
            store.rows("SELECT set_config(:name, :value, false)", name=other, value="on" if other == way else "off")
        with store.write():
            store.slot_locks.take(others, "lease:1")
            taken = [store.slot_locks.take([seats], f"lease:{n}")[0] for n in range(2, 11)]
        assert taken == [seats.slot(n).key for n in (2, *range(4, 12))]
        assert not store.slot_locks.look_free([seats])
