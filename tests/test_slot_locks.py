"""Slot locks: what may be a key, and what `take`, `free` and `look_free` do, by example and against a dict."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from drydock.errors import ConfigError, SlotLockHeld
from drydock.slots import LONGEST_KEY_BYTES, MOST_SLOTS, SlotLock, checked_locks, dump, load, slot_lock
from drydock.store import open_store
from drydock.store.base import Store

MINE, YOURS = "lease:1", "resource:2"


@pytest.fixture
def store(store_address: str) -> Iterator[Store]:
    store = open_store(store_address)
    yield store
    store.close()


def take(store: Store, holder: str, *locks: SlotLock) -> list[str]:
    with store.write():
        return store.slot_locks.take(locks, holder)


def free(store: Store, holder: str, *keys: str) -> None:
    with store.write():
        store.slot_locks.free(keys, holder)


def held(store: Store) -> dict[str, str]:
    return {row.key: row.holder for row in store.slot_locks.all()}


# ---- keys


def test_a_slot_lock_is_written_as_name_and_arguments() -> None:
    assert slot_lock("board", "usb-3").key == "board(usb-3)"
    assert slot_lock("cell", 1, "b").key == "cell(1, b)"
    assert slot_lock("licence").key == "licence"
    assert slot_lock("licence").slot(4) == SlotLock("licence.slot(4)")
    assert slot_lock("licence").any_of(5) == SlotLock("licence", 5)


@pytest.mark.parametrize("name", ["", "a\nb", "a\0", "\x1b[2J", "\u202egpj", "x" * 256, "é" * 128])
def test_a_key_that_is_empty_too_long_or_not_printable_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="slot lock key"):
        slot_lock(name)


def test_a_key_may_have_as_many_bytes_as_are_allowed() -> None:
    assert slot_lock("é" * 127 + "x").key == "é" * 127 + "x"
    assert len(slot_lock("x" * LONGEST_KEY_BYTES).key) == LONGEST_KEY_BYTES


@pytest.mark.parametrize("limit", [0, -1, MOST_SLOTS + 1])
def test_the_limit_of_any_of_is_checked(limit: int) -> None:
    with pytest.raises(ConfigError, match="may have 1 to"):
        slot_lock("x").any_of(limit)


@pytest.mark.parametrize(
    "locks", ["x", SlotLock("x"), None, 3, ["x"], [SlotLock("")], [SlotLock("x", -1)], [SlotLock("x", True)],
              [SlotLock("x", MOST_SLOTS + 1)], [("x", 0)]],
)  # fmt: skip
def test_what_an_author_gives_as_slot_locks_is_checked(locks: object) -> None:
    with pytest.raises(ConfigError):
        checked_locks(locks)


@given(st.lists(st.builds(SlotLock, st.text(min_size=1, max_size=9), st.integers(0, 5)), max_size=6))
def test_dump_and_load_keep_the_set_of_claims(locks: list[SlotLock]) -> None:
    assert load(dump(locks)) == tuple(sorted(set(locks)))


# ---- taking


def test_a_key_is_held_by_one_holder_until_that_one_frees_it(store: Store) -> None:
    assert take(store, MINE, slot_lock("a")) == ["a"]
    with pytest.raises(SlotLockHeld) as lost:
        take(store, YOURS, slot_lock("a"))
    assert lost.value.held == {"a": MINE}
    assert '"a" (held by lease:1)' in str(lost.value)
    free(store, YOURS, "a")
    assert held(store) == {"a": MINE}
    free(store, MINE, "a")
    free(store, MINE, "a")
    assert take(store, YOURS, slot_lock("a")) == ["a"]


def test_what_the_same_holder_has_counts_as_taken_and_twice_is_once(store: Store) -> None:
    assert take(store, MINE, slot_lock("b"), slot_lock("a"), slot_lock("b")) == ["a", "b"]
    assert take(store, MINE, slot_lock("b"), slot_lock("c")) == ["b", "c"]
    assert held(store) == {"a": MINE, "b": MINE, "c": MINE}


# ---- one of many


def test_any_of_gives_the_lowest_free_slot_and_exactly_so_many(store: Store) -> None:
    lock = slot_lock("seat").any_of(3)
    assert [take(store, f"lease:{n}", lock) for n in range(3)] == [[f"seat.slot({n})"] for n in range(3)]
    with pytest.raises(SlotLockHeld):
        take(store, "lease:3", lock)
    free(store, "lease:1", "seat.slot(1)")
    assert take(store, "lease:3", lock) == ["seat.slot(1)"]


@pytest.mark.parametrize("left", [0, 1, 57, 99])
def test_the_last_free_slot_is_found_wherever_it_is(store: Store, left: int) -> None:
    for number in set(range(100)) - {left}:
        take(store, f"lease:{number}", slot_lock("seat").slot(number))
    assert store.slot_locks.look_free([slot_lock("seat").any_of(100)])
    assert take(store, "lease:200", slot_lock("seat").any_of(100)) == [f"seat.slot({left})"]
    assert not store.slot_locks.look_free([slot_lock("seat").any_of(100)])


def test_who_has_a_slot_within_the_limit_is_not_given_a_second(store: Store) -> None:
    take(store, YOURS, slot_lock("seat").slot(0))
    assert take(store, MINE, slot_lock("seat").any_of(3)) == ["seat.slot(1)"]
    assert take(store, MINE, slot_lock("seat").any_of(3)) == ["seat.slot(1)"]


def test_only_a_slot_within_the_limit_counts_as_mine(store: Store) -> None:
    """What I hold beyond the limit, or under a name that begins like a slot's, is not one of the slots asked for."""
    take(store, YOURS, *(slot_lock("seat").slot(n) for n in range(2)))
    take(store, MINE, slot_lock("seat").slot(10), slot_lock("seat").slot(0).slot(0), slot_lock("seat.slot(2"))
    assert take(store, MINE, slot_lock("seat").any_of(3)) == ["seat.slot(2)"]
    assert take(store, MINE, slot_lock("seat").any_of(11)) == ["seat.slot(2)"]
    with pytest.raises(SlotLockHeld):
        take(store, MINE, slot_lock("seat").any_of(2))


def test_any_of_one_is_slot_zero(store: Store) -> None:
    take(store, YOURS, slot_lock("seat").slot(1))
    assert take(store, MINE, slot_lock("seat").any_of(1)) == ["seat.slot(0)"]
    with pytest.raises(SlotLockHeld) as lost:
        take(store, YOURS, slot_lock("seat").any_of(1))
    assert lost.value.held == {"seat.slot(0)": MINE}


def test_resolve_names_the_keys_and_takes_none(store: Store) -> None:
    take(store, YOURS, slot_lock("seat").slot(0))
    with store.write():
        assert store.slot_locks.resolve([slot_lock("a"), slot_lock("seat").any_of(2)], MINE) == ["a", "seat.slot(1)"]
    assert held(store) == {"seat.slot(0)": YOURS}


# ---- against a model

HOLDERS = st.sampled_from(["lease:1", "lease:2", "resource:1"])
#: keys that look like one another's slots are among them on purpose
NAMES = ["a", "A", "b", "a.slot(0)", "a.slot(1)"]
LOCKS = st.lists(st.builds(SlotLock, st.sampled_from(NAMES), st.sampled_from([0, 0, 1, 2, 3])), max_size=4)


def slots(lock: SlotLock) -> list[str]:
    return [lock.slot(n).key for n in range(lock.of)]


class AgainstADict(RuleBasedStateMachine):
    """`take` and `free` of several holders do what they would do to a dict from key to holder."""

    address: str

    def __init__(self) -> None:
        super().__init__()
        self.store = open_store(self.address)
        with self.store.write():
            self.store.run("DELETE FROM slot_lock")
        self.model: dict[str, str] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule(holder=HOLDERS, locks=LOCKS)
    def take(self, holder: str, locks: list[SlotLock]) -> None:
        wanted, in_the_way, keys = dict(self.model), {}, []
        for lock in sorted(set(locks)):
            options = slots(lock) or [lock.key]
            own = [key for key in options if wanted.get(key) == holder]
            free = [key for key in options if key not in wanted]
            if not own and not free:
                in_the_way[options[0]] = wanted[options[0]]
                continue
            keys.append((own or free)[0])
            wanted[keys[-1]] = holder
        with self.store.write():
            if in_the_way:
                with pytest.raises(SlotLockHeld) as lost:
                    self.store.slot_locks.take(locks, holder)
                assert lost.value.held == in_the_way
            else:
                assert self.store.slot_locks.take(locks, holder) == keys
                self.model = wanted

    @rule(holder=HOLDERS, locks=LOCKS)
    def free(self, holder: str, locks: list[SlotLock]) -> None:
        keys = [key for lock in locks for key in (slots(lock) or [lock.key])]
        with self.store.write():
            self.store.slot_locks.free(keys, holder)
        self.model = {key: by for key, by in self.model.items() if key not in keys or by != holder}

    @rule(locks=LOCKS)
    def look_free(self, locks: list[SlotLock]) -> None:
        possible = all(any(key not in self.model for key in (slots(lock) or [lock.key])) for lock in locks)
        assert self.store.slot_locks.look_free(locks) == possible

    @invariant()
    def the_table_is_the_dict(self) -> None:
        assert held(self.store) == self.model
        assert all(self.store.slot_locks.holder_of(key) == self.model.get(key) for key in NAMES)


def test_slot_locks_against_a_dict(store_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_SYNCHRONOUS", "normal")
    AgainstADict.address = store_address
    run_state_machine_as_test(
        AgainstADict,
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
