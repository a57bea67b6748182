"""What every store must do, as tests that whoever writes one runs on it.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store_address(self) -> str: ...  # where a store is that nobody has used yet

Give `OPEN` too unless `drydock.store.open_store` knows such addresses: what another process runs to have it. What a
store must do beyond this, with its files or its server, is its own to test.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from ..config import parse_pool
from ..engine import Engine
from ..errors import ConfigError, SlotLockHeld, StatusChanged
from ..model import Demand, LeaseStatus, Terms
from ..slots import SlotLock, slot_lock
from ..store import open_store
from ..store.base import Store
from .children import Child, run_together

HOST, OTHER_HOST = "h1", "h2"
ALL = 1000
MINE, YOURS = "lease:1", "resource:2"

#: obeys one word at a time; it would wait for an hour, and whoever hears it loses patience long before
OBEY = """
store = open_store(sys.argv[1])
store.listen()
store.listen()
say(store.process)
while order := hear():
    if order == "look":
        say(len(store.events.latest(100)))
    elif order == "wait":
        say("waiting")
        say("woken", store.wait_for_news(3600.0))
    elif order == "wait a moment":
        say("woken", store.wait_for_news(0.01))
    elif order == "write":
        with store.write():
            store.events.add("mine")
        say("written")
    elif order == "write and stand":
        with store.write():
            store.events.add("lost")
            say("inside")
            hear()
        say("written")
    elif order == "ask":
        from drydock.model import Demand, Terms
        with store.write():
            say(store.leases.add(Demand("host"), Terms(), "child", store.process).id)
    elif order == "watch":
        say(store.may_watch())
    elif order == "unwatch":
        store.stop_watching()
        say("unwatched")
    elif order == "close":
        store.close()
        store.close()
        say("closed")
"""

#: takes one slot lock, at the same time as others
TAKE = """
from drydock.errors import SlotLockHeld
from drydock.slots import SlotLock
store = open_store(sys.argv[1])
say("ready")
hear()
with store.write():
    try:
        say("took", *store.slot_locks.take([SlotLock(sys.argv[3], int(sys.argv[4]))], sys.argv[2]))
    except SlotLockHeld as lost:
        say("lost to", *lost.held.values())
store.close()
"""

#: each adds one to a number that all see, if it is still what it has read
COUNT = """
store = open_store(sys.argv[1])
say("ready")
hear()
for _ in range(20):
    with store.write():
        number = max([event.data["number"] for event in store.events.latest(1)], default=0)
        store.events.add("counted", number=number + 1)
store.close()
"""

FORK = """
from drydock.errors import StoreError
store = open_store(sys.argv[1])
with store.write():
    store.events.add("before")
me = store.process
child = os.fork()
if not child:
    try:
        with store.write():
            store.events.add("from the child")
    except StoreError as error:
        say(error)
    store.close()
    own = open_store(sys.argv[1])
    with own.write():
        own.events.add("by its own")
    own.close()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
with store.write():
    store.events.add("after")
say(store.is_alive(me))
hear()
store.close()
"""

FORK_AND_LISTEN = """
store = open_store(sys.argv[1])
store.listen()
say(store.process)
child = os.fork()
if not child:
    store.close()
    own = open_store(sys.argv[1])
    own.listen()
    say(own.process)
    say("child woken", own.wait_for_news(3600.0))
    own.close()
    os._exit(0)
os.waitpid(child, 0)
say("woken", store.wait_for_news(3600.0))
"""

#: text that means something to SQL, to a driver, or to whoever compares without looking at each byte
ODD_TEXTS = [
    "it's", 'a "word"', "100%", "%s %(x)s %%", ":name :id ::text", "$1 ?", "back\\slash \\n \\0 \\", "a;b -- c /* d */", "",
    " ", "tab\tnew\nline\r\n", "\x01\x7f", "é", "e\u0301", "\U0001f6a2", "\u202e\ufeff", "NULL", "x" * 70_000,
]  # fmt: skip


def names(store: Store) -> list[str]:
    return [event.event for event in store.events.latest(ALL)]


def fail(store: Store, event: str, error: type[BaseException] = RuntimeError) -> None:
    store.events.add(event)
    raise error


def wake(store: Store, *processes: str) -> None:
    """A transaction that changes something, and after which these are woken."""
    with store.write():
        store.events.add("happened")
        for process in processes:
            store.wake(process)


def wake_and_fail(store: Store, process: str) -> None:
    store.wake(process)
    fail(store, "undone")


def insert_twice(store: Store) -> None:
    for _ in range(2):
        store.run("INSERT INTO slot_lock (key, holder, taken_at) VALUES ('a', 'lease:1', 0)")
    store.confirm()


def give_up(store: Store, lease: int) -> None:
    """Change the status of a request that waits, and tell so."""
    store.events.add("given up")
    store.move("lease", lease, LeaseStatus.PENDING, LeaseStatus.DESTROYED)


def give_up_for_certain(store: Store, lease: int) -> None:
    give_up(store, lease)
    store.confirm()


def take(store: Store, holder: str, *locks: SlotLock) -> list[str]:
    with store.write():
        return store.slot_locks.take(locks, holder)


def held(store: Store) -> dict[str, str]:
    return {row.key: row.holder for row in store.slot_locks.all()}


def ask(store: Store, *, owner: str = "tester", **attributes: object) -> int:
    """A request of this connection's process."""
    with store.write():
        return store.leases.add(Demand("host", (), attributes), Terms(), owner, store.process).id


class Obedient(Child):
    """A process that has the store open and does what it is told; `name` is what others call it."""

    def __init__(self, code: str, address: str) -> None:
        super().__init__(code, address)
        self.name = self.hear()

    def do(self, order: str) -> str:
        self.tell(order)
        return self.hear()


class StoreContract:
    #: what another process runs to have `open_store(address)`
    OPEN: ClassVar[str] = "from drydock.store import open_store\n"

    def open_store(self, address: str) -> Store:
        return open_store(address)

    @pytest.fixture
    def opens(self, store_address: str) -> Iterator[Callable[[], Store]]:
        """Opens one more connection."""
        opened: list[Store] = []

        def opens() -> Store:
            opened.append(self.open_store(store_address))
            return opened[-1]

        yield opens
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, opens: Callable[[], Store]) -> Store:
        return opens()

    @pytest.fixture
    def other(self, store: Store, opens: Callable[[], Store]) -> Store:
        """Another connection of the same process."""
        return opens()

    @pytest.fixture
    def child(self, store: Store, store_address: str) -> Iterator[Obedient]:
        """A process that has the store open."""
        with Obedient(self.OPEN + OBEY, store_address) as child:
            yield child

    @pytest.fixture
    def another(self, store: Store, store_address: str) -> Iterator[Obedient]:
        """One more process that has the store open."""
        with Obedient(self.OPEN + OBEY, store_address) as child:
            yield child

    # ---- write, attempt, read

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_a_write_is_kept_whole_or_not_at_all(self, store: Store, other: Store, error: type[BaseException]) -> None:
        with store.write():
            store.events.add("kept")
        assert store.committed
        with pytest.raises(error), store.write():
            fail(store, "lost", error)
        assert not store.committed
        assert names(other) == ["kept"]
        other.patience_seconds = 0.0
        with other.write():  # the turn was given away too
            other.events.add("next")

    def test_what_is_written_is_seen_by_others_only_when_it_is_committed(self, store: Store, other: Store) -> None:
        with store.write():
            store.events.add("mine")
            assert names(store) == ["mine"]
            assert names(other) == []
        assert names(other) == ["mine"]

    def test_an_attempt_that_fails_undoes_its_own_part_alone(self, store: Store, other: Store) -> None:
        with store.write():
            store.events.add("before")
            with pytest.raises(RuntimeError), store.attempt():
                fail(store, "tried")
            with store.attempt():
                store.events.add("outer")
                with pytest.raises(RuntimeError), store.attempt():
                    fail(store, "inner")
            store.events.add("after")
        assert names(other) == ["before", "outer", "after"]

    def test_an_attempt_may_break_a_rule_of_the_tables_and_all_else_is_kept(self, store: Store, other: Store) -> None:
        with store.write():
            store.events.add("before")
            with pytest.raises(Exception, match=r"(?i)constraint|unique"), store.attempt():
                insert_twice(store)
            store.events.add("after")
        assert names(other) == ["before", "after"]
        assert held(other) == {}

    def test_a_read_sees_one_moment(self, store: Store, other: Store) -> None:
        with store.read():
            assert names(store) == []
            with other.write():
                other.events.add("meanwhile")
            assert names(store) == []
        assert names(store) == ["meanwhile"]

    def test_who_reads_keeps_nobody_from_writing_and_writes_after_it(self, store: Store, other: Store) -> None:
        with store.read(), other.write():
            other.events.add("other")
            assert names(store) == []
        with store.write():
            store.events.add("own")
        assert names(other) == ["other", "own"]

    def test_of_many_processes_that_read_and_write_none_writes_over_another(
        self, store: Store, store_address: str
    ) -> None:
        assert run_together([Child(self.OPEN + COUNT, store_address) for _ in range(3)]) == [[], [], []]
        assert [event.data["number"] for event in store.events.latest(ALL)] == list(range(1, 61))

    def test_who_is_killed_in_the_middle_leaves_nothing_and_keeps_nobody_waiting(
        self, store: Store, child: Obedient
    ) -> None:
        assert child.do("write") == "written"
        assert child.do("write and stand") == "inside"
        child.kill()
        with store.write():
            store.events.add("after")
        assert names(store) == ["mine", "after"]

    def test_who_wants_to_write_meanwhile_waits_for_his_turn(
        self, store: Store, child: Obedient, another: Obedient
    ) -> None:
        assert child.do("write and stand") == "inside"
        another.tell("write and stand")
        assert names(store) == []
        assert child.do("go") == "written"
        another.expect("inside")
        assert names(store) == ["lost"]
        assert another.do("go") == "written"
        assert names(store) == ["lost", "lost"]

    def test_a_forked_child_must_open_its_own_and_harms_nothing(self, store: Store, store_address: str) -> None:
        with Child(self.OPEN + FORK, store_address) as child:
            child.expect("this connection was opened before a fork; the child must open its own", "True")
            assert names(store) == ["before", "by its own", "after"]
            child.tell()
            assert child.rest() == []

    # ---- what is recorded is heard

    def test_what_was_committed_is_heard_as_the_history_has_it(self, store: Store) -> None:
        store.events.heard = []
        with store.write():
            store.events.add("one", lease=7, blueprint="lab", name="h1")
            assert store.events.heard == [], "it may still be undone"
            store.events.add("two", resource=3)
        assert store.events.heard == store.events.latest(10)
        assert [event.event for event in store.events.heard] == ["one", "two"]

    def test_what_was_undone_with_its_transaction_is_not_heard(self, store: Store) -> None:
        store.events.heard = []
        with pytest.raises(RuntimeError), store.write():
            fail(store, "undone")
        with store.write():
            store.events.add("kept")
        assert [event.event for event in store.events.heard] == ["kept"]

    def test_what_was_undone_in_part_is_not_heard(self, store: Store) -> None:
        store.events.heard = []
        with store.write():
            store.events.add("before")
            with pytest.raises(RuntimeError), store.attempt():
                fail(store, "undone")
            with store.attempt():
                store.events.add("kept")
        assert [event.event for event in store.events.heard] == ["before", "kept"]
        assert store.events.heard == store.events.latest(10)

    # ---- compare and set

    def test_a_status_is_changed_only_from_what_it_is(self, store: Store, other: Store) -> None:
        id = ask(store)
        with other.write():
            other.move("lease", id, LeaseStatus.PENDING, LeaseStatus.DESTROYED, reason="enough", ended_at=5.0)
        with pytest.raises(StatusChanged) as changed, store.write():
            give_up(store, id)
        assert (changed.value.kind, changed.value.id) == ("lease", id)
        assert (changed.value.expected, changed.value.actual) == (("pending",), "destroyed")
        found = store.leases.get(id)
        assert found is not None
        assert (found.status, found.reason, found.ended_at) == (LeaseStatus.DESTROYED, "enough", 5.0)
        assert names(store) == []

    def test_a_change_of_status_that_comes_too_late_undoes_what_was_attempted_with_it(self, store: Store) -> None:
        id = ask(store)
        with store.write():
            store.move("lease", id, LeaseStatus.PENDING, LeaseStatus.DESTROYED)
            for gone in (999, id):
                with pytest.raises(StatusChanged) as changed, store.attempt():
                    give_up_for_certain(store, gone)
                assert f"lease {gone}" in str(changed.value)
            store.events.add("kept")
        assert names(store) == ["kept"]

    def test_a_change_of_status_that_is_no_arrow_is_a_bug(self, store: Store) -> None:
        id = ask(store)
        with store.write(), pytest.raises(ValueError, match="cannot go from"):
            store.move("lease", id, LeaseStatus.PENDING, LeaseStatus.RELEASED)

    # ---- slot locks

    def test_of_all_who_take_a_key_at_once_one_has_it(self, store: Store, store_address: str) -> None:
        holders = [f"lease:{number}" for number in range(4)]
        told = run_together([Child(self.OPEN + TAKE, store_address, holder, "k", 0) for holder in holders])
        assert sorted(line.split()[0] for [line] in told) == ["lost", "lost", "lost", "took"]
        [(key, winner)] = held(store).items()
        assert key == "k"
        assert [line for [line] in told if line.startswith("lost")] == [f"lost to {winner}"] * 3

    def test_of_all_who_take_one_of_three_at_once_three_have_one(self, store: Store, store_address: str) -> None:
        told = run_together([Child(self.OPEN + TAKE, store_address, f"lease:{n}", "seat", 3) for n in range(4)])
        assert sorted(line.split(" to ")[0] for [line] in told) == [
            "lost", "took seat.slot(0)", "took seat.slot(1)", "took seat.slot(2)",
        ]  # fmt: skip
        assert len(held(store)) == 3

    def test_the_loser_is_told_every_key_in_its_way_and_takes_none(self, store: Store) -> None:
        """All or nothing. What the loser held before it keeps."""
        take(store, MINE, slot_lock("b"), slot_lock("d"))
        take(store, YOURS, slot_lock("a"))
        with store.write(), pytest.raises(SlotLockHeld) as lost:
            store.slot_locks.take(map(slot_lock, "edcba"), YOURS)
        assert lost.value.held == {"b": MINE, "d": MINE}
        assert held(store) == {"a": YOURS, "b": MINE, "d": MINE}

    def test_keys_are_taken_and_told_in_the_order_of_their_bytes(self, store: Store) -> None:
        """So that two who want the same in another order never wait for each other. Where a language sorts, é is near e."""
        keys = ["é", "b", "B", "a-b", "a", "_", "a b", "ab", "Z"]
        assert take(store, MINE, *map(SlotLock, keys)) == sorted(keys)
        assert list(held(store)) == sorted(keys)

    def test_keys_are_compared_byte_for_byte(self, store: Store) -> None:
        """No case folding, no normal form, no trimming, no wildcard: these are eight names."""
        keys = ["k", "K", "k ", "k%", "k_", "é", "e\u0301", "k.slot(0)"]
        for number, key in enumerate(keys):
            assert take(store, f"lease:{number}", SlotLock(key)) == [key]
        assert held(store) == {key: f"lease:{number}" for number, key in enumerate(keys)}

    def test_long_keys_are_kept_whole(self, store: Store) -> None:
        keys = ["x" * 254 + end for end in "ab"]
        for number, key in enumerate(keys):
            take(store, f"lease:{number}", slot_lock(key))
        assert sorted(held(store)) == keys

    # ---- text and numbers

    @pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
    def test_text_is_kept_as_it_was_given(self, store: Store, other: Store, text: str) -> None:
        id = ask(store, owner=text, **{text: text})
        with store.write():
            store.events.add("odd", text=text)
        found = other.leases.get(id)
        assert found is not None
        assert (found.owner, found.attributes) == (text, {text: text})
        assert other.events.latest(1)[0].data == {"text": text}

    @pytest.mark.parametrize("text", [text for text in ODD_TEXTS if len(text.encode()) < 256], ids=repr)
    def test_text_is_found_by_what_it_is(self, store: Store, other: Store, text: str) -> None:
        take(store, MINE, SlotLock(text))
        assert other.slot_locks.holder_of(text) == MINE
        assert other.slot_locks.holder_of(text + "x") is None
        with pytest.raises(SlotLockHeld):
            take(other, YOURS, SlotLock(text))

    @pytest.mark.parametrize("value", [0, -1, 2**53 - 1, 0.1, 1e300, -0.5, True, None, ["a", 1], {"b": [None]}])
    def test_attributes_are_kept_as_they_were_given(self, store: Store, other: Store, value: object) -> None:
        found = other.leases.get(ask(store, x=value))
        assert found is not None
        assert found.attributes == {"x": value}
        assert type(found.attributes["x"]) is type(value)

    def test_a_moment_is_kept_to_the_microsecond(self, store: Store, other: Store) -> None:
        id = ask(store)
        for moment in (1_800_000_000.123456, 0.0, 253_402_300_799.999):
            with store.write():
                store.leases.outlive(id, moment)
            found = other.leases.get(id)
            assert found is not None
            assert found.until == moment

    def test_so_many_attributes_as_there_may_be_are_offered_and_found(self, store: Store) -> None:
        """64 KiB is the most that a thing may have; no index has to hold it."""
        engine = Engine(store, environment={})
        large = {"note": "".join(chr(0x4E00 + n % 20_000) for n in range(10_700)), "n": 1}
        hosts = [{"name": HOST, "attributes": large}, {"name": OTHER_HOST, "attributes": {**large, "n": 2}}]
        engine.apply(parse_pool({"blueprint": {"lab": {"kind": "host-pool", "hosts": hosts}}}, "pool"))
        [lease] = engine.lease(Demand("host", (), {**large, "n": 2}), owner="t", wait_seconds=0)
        assert lease.resource is not None
        assert (lease.resource.name, lease.resource.attributes["note"]) == (OTHER_HOST, large["note"])

    @pytest.mark.parametrize("bad", ["a\0b", "\ud800"], ids=["nul", "surrogate"])
    def test_what_is_no_text_for_every_store_is_refused_in_one_sentence(self, store: Store, bad: str) -> None:
        engine = Engine(store, environment={})
        engine.apply(parse_pool({"blueprint": {"lab": {"kind": "host-pool", "hosts": [HOST]}}}, "pool"))
        asked: list[tuple[Demand, str]] = [
            (Demand("host"), bad), (Demand("host", (), {"x": bad}), "t"), (Demand("host", (), {bad: 1}), "t"), (Demand(bad), "t"),
        ]  # fmt: skip
        for demand, owner in asked:
            with pytest.raises(ConfigError) as refused:
                engine.lease(demand, owner=owner, wait_seconds=0)
            assert "\n" not in str(refused.value)
        assert store.leases.latest(ALL) == []

    # ---- damaged rows

    @pytest.mark.parametrize(
        ("planted", "told"),
        [("attributes = '{'", "attributes: not JSON"), ("attributes = '[1]'", "attributes: not a JSON object"),
         ("slot_locks = '[1]'", "slot_locks: not a list of texts"), ("until = 9.2e18", "until: not a moment"),
         ("created_at = -1", "created_at: not a moment"), ("created_at = 1e300", "created_at: not a moment")],
    )  # fmt: skip
    def test_a_damaged_row_is_told_by_name_and_the_others_are_read(
        self, store: Store, other: Store, planted: str, told: str
    ) -> None:
        first, second = ask(store), ask(store)
        with store.write():
            store.run(f"UPDATE lease SET {planted} WHERE id = :id", id=first)
        assert [lease.id for lease in other.leases.live()] == [second]
        [damaged] = other.damaged
        assert str(damaged).startswith(f"lease {first} is damaged ({told}")

    def test_a_process_by_a_name_that_is_none_is_dead(self, store: Store, child: Obedient) -> None:
        nobodies = {"00000000002a", "", "-1", "not a name", "../drydock.db", "x" * 5000, "a'b", "%", "é"}
        assert store.dead_among({*nobodies, store.process, child.name}) == nobodies

    # ---- waking

    def test_whoever_waits_is_woken(self, store: Store, child: Obedient) -> None:
        assert child.do("wait") == "waiting"
        wake(store, child.name)
        child.expect("woken True")

    def test_a_wake_up_between_the_look_and_the_wait_is_not_lost(self, store: Store, child: Obedient) -> None:
        for number in range(3):
            assert child.do("look") == str(number)
            wake(store, child.name)
            assert child.do("wait") == "waiting"
            child.expect("woken True")

    def test_a_wait_after_all_was_heard_ends_with_its_time(self, store: Store, child: Obedient) -> None:
        """They say "look", and one look sees all; some may be told late, but each once."""
        for _ in range(5):
            wake(store, child.name)
        said = [child.do("wait a moment") for _ in range(20)]
        assert said[0] == "woken True" or "woken True" in said
        assert said[-1] == "woken False"
        assert said.count("woken True") <= 5

    def test_only_who_is_named_is_woken(self, store: Store, child: Obedient, another: Obedient) -> None:
        wake(store, child.name)
        assert another.do("wait a moment") == "woken False"
        assert child.do("wait") == "waiting"
        child.expect("woken True")

    def test_what_others_and_he_himself_write_wakes_nobody(self, store: Store, child: Obedient) -> None:
        wake(store)
        assert child.do("write") == "written"
        assert child.do("wait a moment") == "woken False"

    def test_a_transaction_that_is_rolled_back_wakes_nobody(self, store: Store, child: Obedient) -> None:
        with pytest.raises(RuntimeError), store.write():
            wake_and_fail(store, child.name)
        wake(store)  # nor does the next one
        assert child.do("wait a moment") == "woken False"

    def test_who_is_woken_finds_the_change_committed(self, store: Store, child: Obedient) -> None:
        with store.write():
            store.events.add("happened")
            store.wake(child.name)
            assert child.do("wait a moment") == "woken False"
        assert child.do("wait") == "waiting"
        child.expect("woken True")
        assert child.do("look") == "1"

    @pytest.mark.parametrize("name", ["00000000002a", "", "../drydock.db", "x" * 5000, "a'b\"c", "nul\0"])
    def test_waking_nobody_is_no_error(self, store: Store, child: Obedient, name: str) -> None:
        """Also not under a name that is none: a damaged row."""
        assert child.do("wait") == "waiting"
        wake(store, name, child.name)
        child.expect("woken True")
        assert names(store) == ["happened"]

    def test_waking_the_dead_keeps_nobody_from_waking_the_living(
        self, store: Store, child: Obedient, another: Obedient
    ) -> None:
        child.kill()
        assert another.do("wait") == "waiting"
        wake(store, child.name, another.name)
        another.expect("woken True")

    def test_a_forked_child_neither_ends_its_parent_s_listening_nor_hears_for_it(
        self, store: Store, store_address: str
    ) -> None:
        with Child(self.OPEN + FORK_AND_LISTEN, store_address) as child:
            parent, own = child.hear(), child.hear()
            assert parent != own
            wake(store, parent)
            wake(store, own)
            child.expect("child woken True", "woken True")

    # ---- the living and the dead

    def test_each_connection_has_a_name_and_knows_that_it_lives(self, store: Store, other: Store) -> None:
        assert store.process != other.process
        assert store.process == store.process
        assert store.is_alive(store.process)
        assert store.is_alive(other.process)

    def test_a_process_lives_until_it_is_killed(self, store: Store, child: Obedient, another: Obedient) -> None:
        both = {child.name, another.name}
        assert child.do("write") == another.do("write") == "written"
        assert store.dead_among(both) == set()
        child.kill()
        assert store.dead_among(both) == {child.name}
        assert not store.is_alive(child.name)
        assert store.is_alive(another.name)

    def test_a_connection_that_holds_nothing_is_gone_when_it_is_closed(self, store: Store, child: Obedient) -> None:
        assert child.do("write") == "written"
        assert store.is_alive(child.name)
        assert child.do("close") == "closed"
        assert not store.is_alive(child.name)

    def test_what_is_bound_outlives_the_connection_and_ends_with_its_process(
        self, store: Store, child: Obedient
    ) -> None:
        id = int(child.do("ask"))
        assert child.do("close") == "closed"
        assert store.leases.bound() == [(id, child.name)]
        assert store.is_alive(child.name)
        assert not store.anything_over()
        child.kill()
        assert not store.is_alive(child.name)
        assert store.anything_over()

    def test_closing_one_connection_leaves_the_others_of_the_process_alive(
        self, store: Store, opens: Callable[[], Store], child: Obedient
    ) -> None:
        stays, goes = opens(), opens()
        both = {stays.process, goes.process}
        with stays.write():
            stays.events.add("here")
        with goes.write():
            goes.events.add("here")
        assert store.dead_among(both) == set()
        goes.close()
        assert store.dead_among(both) == {goes.process}

    # ---- has anybody committed

    def test_the_version_is_another_one_when_somebody_else_has_committed(self, store: Store, child: Obedient) -> None:
        before = store.version()
        assert store.version() == before
        names(store)
        assert store.version() == before
        assert child.do("write") == "written"
        after = store.version()
        assert after != before
        assert store.version() == after

    def test_who_looks_while_somebody_writes_learns_when_that_is_committed(self, store: Store, child: Obedient) -> None:
        assert child.do("write and stand") == "inside"
        during = store.version()
        assert names(store) == []
        assert child.do("go") == "written"
        assert names(store) == ["lost"]
        assert store.version() != during

    # ---- who keeps watch

    def test_of_all_that_ask_one_keeps_watch_until_it_lets_go_or_dies(
        self, store: Store, child: Obedient, another: Obedient
    ) -> None:
        assert store.may_watch()
        assert [child.do("watch"), another.do("watch")] == ["False", "False"]
        assert store.may_watch()
        store.stop_watching()
        store.stop_watching()
        assert [child.do("watch"), another.do("watch")] == ["True", "False"]
        assert another.do("unwatch") == "unwatched"  # by one who does not watch: it takes nothing from the other
        assert [another.do("watch"), child.do("watch")] == ["False", "True"]
        child.kill()
        assert another.do("watch") == "True"
        assert not store.may_watch()
        assert another.do("close") == "closed"
        assert store.may_watch()

    def test_of_two_connections_of_one_process_one_keeps_watch(self, store: Store, other: Store) -> None:
        assert [store.may_watch(), other.may_watch(), store.may_watch()] == [True, False, True]
        store.close()
        assert other.may_watch()

    # ---- fences

    def test_each_grant_of_a_thing_has_a_larger_fence(self, store: Store, other: Store) -> None:
        """Whoever grants it, and also when it was taken out and offered again."""
        fences: list[int] = []
        for connection in (store, other, store):
            engine = Engine(connection, environment={})
            engine.apply(parse_pool({"blueprint": {"lab": {"kind": "host-pool", "hosts": [HOST]}}}, "pool"))
            for _ in range(2):
                [lease] = engine.lease(Demand("host"), owner="t", wait_seconds=0)
                assert lease.fence is not None
                fences.append(lease.fence)
                engine.release(lease.id)
            engine.apply(parse_pool({"blueprint": {"lab": {"kind": "host-pool", "hosts": [OTHER_HOST]}}}, "pool"))
        assert fences == sorted(set(fences))
