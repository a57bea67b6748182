"""The Python door: `drydock.connect()`, leases that are given back whatever happens, and errors that can be told apart."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import until

import drydock
from drydock import errors
from drydock.api import Connection, Lease, Leases
from drydock.testing.children import Child

POOL = {
    "blueprint": {
        "lab": {
            "kind": "host-pool",
            "hosts": ["h1", {"name": "h2", "address": "10.0.0.2", "attributes": {"arch": "arm64"}}],
        },
        "one": {"kind": "host-pool", "type": "host", "hosts": ["x1"]},
    }
}


@pytest.fixture
def dock(store_address: str) -> Iterator[Connection]:
    with drydock.connect(store_address) as dock:
        dock.apply(POOL)
        yield dock


# ---- connect


def test_connect_takes_a_path_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drydock.connect(str(tmp_path / "given.db")) as given:
        assert repr(given) == f"<drydock.Connection {tmp_path / 'given.db'}>"
    monkeypatch.setenv("DRYDOCK_STORE", str(tmp_path / "set.db"))
    drydock.connect().close()
    monkeypatch.delenv("DRYDOCK_STORE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    drydock.connect().close()
    assert (tmp_path / "given.db").is_file()
    assert (tmp_path / "set.db").is_file()
    assert (tmp_path / "state" / "drydock" / "drydock.db").is_file()


@pytest.mark.parametrize(
    ("store", "error"),
    [("", errors.ConfigError), ("file:x.db", errors.ConfigError), ("mysql://x/y", errors.ConfigError),
     ("/nowhere/at/all.db", errors.StoreError)],
)  # fmt: skip
def test_a_store_that_cannot_be_meant_or_used_is_told(store: str, error: type[errors.DrydockError]) -> None:
    with pytest.raises(error):
        drydock.connect(store)


def test_close_may_be_called_twice_and_ends_no_lease_of_a_process_that_lives(
    dock: Connection, store_address: str
) -> None:
    bound = dock.lease("host", wait=0)
    kept = dock.lease("host", wait=0, detach=True)
    dock.close()
    dock.close()
    with drydock.connect(store_address) as other:
        assert [held.id for held in other.leases()] == [bound.id, kept.id]


def test_the_package_offers_connect_and_its_version_and_nothing_by_accident() -> None:
    assert set(drydock.__all__) >= {"Connection", "connect"}
    assert drydock.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'lese'"):
        drydock.lese  # noqa: B018


# ---- apply


def test_apply_takes_a_dict_or_a_file_and_tells_what_changed(dock: Connection, tmp_path: Path) -> None:
    file = tmp_path / "pool.toml"
    file.write_text('[blueprint.lab]\nkind = "host-pool"\nhosts = ["h1", "h9"]\n')
    changes = dock.apply(file)
    assert [(c.kind, c.name, c.change) for c in changes if c.kind == "binding"] == [
        ("binding", "h9", "added"), ("binding", "h2", "removed"),
    ]  # fmt: skip
    assert dock.apply(str(file)) == []
    pruned = dock.apply(file, prune=True)
    assert [(c.kind, c.name, c.change) for c in pruned] == [("blueprint", "one", "disabled")]
    with pytest.raises(errors.ConfigError, match="cannot read"):
        dock.apply(tmp_path / "missing.toml")
    with pytest.raises(errors.ConfigError, match="no kind"):
        dock.apply({"blueprint": {"x": {"kind": "nowhere"}}})


# ---- lease


def test_a_lease_says_what_it_is(dock: Connection) -> None:
    with dock.lease("host", attributes={"arch": "arm64"}, owner="ann", wait=0) as lease:
        assert (lease.id, lease.fence, lease.status) == (1, 1, "active")
        assert (lease.resource.name, lease.resource.attributes["address"]) == ("h2", "10.0.0.2")
        assert lease.resource.id > 0
        assert repr(lease) == "<drydock.Lease 1 host h2 fence 1>"
        [row] = dock.leases()
        assert (row.id, row.owner, row.resource and row.resource.id) == (1, "ann", lease.resource.id)
        assert [resource.id for resource in dock.resources()] == [lease.resource.id]
        assert {lock.key: lock.holder for lock in dock.locks()}["host(h2)"] == f"resource:{lease.resource.id}"
        lease.verify()
    assert dock.leases() == []
    assert lease.status == "destroyed"
    assert lease.fence == 1
    with pytest.raises(errors.LeaseLost, match="lease 1 is lost: it is destroyed"):
        lease.verify()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_lease_is_given_back_whatever_ends_the_block(dock: Connection, error: type[BaseException]) -> None:
    with pytest.raises(error), dock.lease("host", wait=0):
        raise error
    assert dock.leases() == []


def test_a_lease_may_be_given_back_early_and_by_anybody(dock: Connection, store_address: str) -> None:
    with dock.lease("host", wait=0) as lease:
        assert lease.release() is True
        assert lease.release() is False
    with dock.lease("host", wait=0) as lease, drydock.connect(store_address) as other:
        assert other.release(lease.id) is True
        assert other.release(lease.id) is False
        assert lease.status == "destroyed"
    with pytest.raises(errors.NotFound, match="no lease 77"):
        dock.release(77)


def test_the_newest_holder_of_a_thing_has_the_largest_fence(dock: Connection) -> None:
    fences = []
    for _ in range(3):
        with dock.lease("host", blueprint="one", wait=0) as lease:
            fences.append(lease.fence)
    assert fences == [1, 2, 3]


def test_blueprint_may_be_a_name_or_several(dock: Connection) -> None:
    one = dock.lease("host", blueprint="one", wait=0)
    assert one.resource.name == "x1"
    names = {dock.lease("host", blueprint=["one", "lab"], wait=0).resource.name for _ in range(2)}
    assert names == {"h1", "h2"}


def test_the_owner_is_whoever_asks_unless_another_is_named(dock: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_OWNER", "ci@runner7")
    dock.lease("host", wait=0)
    dock.lease("host", owner="ann", wait=0)
    assert [lease.owner for lease in dock.leases()] == ["ci@runner7", "ann"]


def test_a_lease_waits_until_another_thread_gives_back(dock: Connection, store_address: str) -> None:
    held = dock.lease("host", blueprint="one", wait=0)
    got: list[tuple[str, int]] = []

    def wait() -> None:
        with drydock.connect(store_address) as other, other.lease("host", blueprint="one") as lease:
            got.append((lease.resource.name, lease.fence))

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda: any(lease.status == "pending" for lease in dock.leases()))
    assert got == []
    held.release()
    waiter.join(60)
    assert got == [("x1", 2)]


# ---- several


def test_several_leases_are_one_sequence_and_given_back_together(dock: Connection) -> None:
    with dock.lease("host", count=3, wait=0) as leases:
        assert isinstance(leases, Leases)
        assert len(leases) == 3
        assert {lease.resource.name for lease in leases} == {"h1", "h2", "x1"}
        assert isinstance(leases[0], Lease)
        assert [lease.id for lease in leases[1:]] == [leases[1].id, leases[-1].id]
        assert leases[1] in leases
        assert repr(leases) == "<drydock.Leases 1, 2, 3>"
        with pytest.raises(IndexError):
            leases[3]
    assert dock.leases() == []


def test_several_are_all_or_nothing(dock: Connection) -> None:
    with dock.lease("host", blueprint="one", wait=0):
        with pytest.raises(errors.NothingFree):
            dock.lease("host", count=3, wait=0)
        assert len(dock.leases()) == 1
    with pytest.raises(RuntimeError), dock.lease("host", count=2, wait=0):
        raise RuntimeError
    assert dock.leases() == []


def test_a_request_for_several_holds_nothing_while_it_waits(dock: Connection, store_address: str) -> None:
    """One of the two that it wants is free; it must not sit on it."""
    held = [dock.lease("host", wait=0), dock.lease("host", wait=0)]
    code = "import drydock\nwith drydock.connect(sys.argv[1]).lease('host', count=2) as two:\n    say(len(two))"
    with Child(code, store_address) as waiter:
        while len(dock.leases()) < 4:
            pass
        assert [(lease.status, lease.resource) for lease in dock.leases()[2:]] == [("pending", None)] * 2
        assert {lock.holder for lock in dock.locks() if lock.holder.startswith("lease")} == {
            f"lease:{lease.id}" for lease in held
        }
        held[0].release()
        waiter.expect("2")


def test_one_of_several_may_be_given_back_before(dock: Connection) -> None:
    with dock.lease("host", count=2, wait=0) as leases:
        assert isinstance(leases, Leases)
        leases[0].release()
        assert [lease.id for lease in dock.leases()] == [leases[1].id]
    assert dock.leases() == []


def test_a_count_of_one_is_one_lease(dock: Connection) -> None:
    assert isinstance(dock.lease("host", count=1, wait=0), Lease)


# ---- what can go wrong


@pytest.mark.parametrize(
    ("type", "options", "error", "sentence"),
    [
        ("host", {"blueprint": "one", "attributes": {"arch": "arm64"}}, errors.NeverPossible, "can ever come from"),
        ("host", {"count": 4}, errors.NeverPossible, "4 x \"host\" requested, the pool can ever hold 3"),
        ("Host", {}, errors.NoBlueprint, 'did you mean "host"'),
        ("port", {}, errors.NoBlueprint, 'no blueprint makes "port"; known types: "host"'),
        ("host", {"blueprint": "lba"}, errors.NotFound, 'no blueprint "lba"'),
        ("host", {"blueprint": ["one", "one"]}, errors.ConfigError, "given twice"),
        ("", {}, errors.ConfigError, "may not be empty"),
        ("host", {"count": 0}, errors.ConfigError, "count must be"),
        ("host", {"owner": ""}, errors.ConfigError, "owner may not be empty"),
        ("host", {"owner": "a\nb"}, errors.ConfigError, "control character"),
        ("host", {"attributes": {"x": object()}}, errors.ConfigError, "no place in JSON"),
        ("host", {"attributes": {"x": float("nan")}}, errors.ConfigError, "finite"),
        ("host", {"attributes": [1]}, errors.ConfigError, "expected an object"),
        ("host", {"attributes": {"internal.x": 1}}, errors.ConfigError, "reserved"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_served_is_told_why_and_leaves_nothing(
    dock: Connection, type: str, options: dict[str, object], error: type[errors.DrydockError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as told:
        dock.lease(type, wait=0, **options)  # type: ignore[call-overload]
    assert isinstance(told.value, errors.DrydockError)
    assert "\n" not in str(told.value)
    assert dock.leases() == []


def test_nothing_free_tells_who_holds_it(dock: Connection) -> None:
    with dock.lease("host", blueprint="one", owner="ann", wait=0) as held:
        with pytest.raises(errors.NothingFree) as told:
            dock.lease("host", blueprint="one", wait=0.01)
        assert isinstance(told.value, errors.Conflict)
        assert f"lease {held.id}" in told.value.reason
        assert "ann" in told.value.reason
        assert [lease.id for lease in dock.leases()] == [held.id]


def test_every_error_that_is_meant_has_one_base_and_yield_and_gone_are_none() -> None:
    meant = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert {e.__name__ for e in meant if not issubclass(e, errors.DrydockError)} == {"Yield", "Gone"}
    for conflict in (errors.NothingFree, errors.SlotLockHeld, errors.StatusChanged, errors.LeaseLost):
        assert issubclass(conflict, errors.Conflict)
    for store in (errors.StoreBusy, errors.StoreDamaged):
        assert issubclass(store, errors.StoreError)


def test_what_a_program_needs_is_there_after_one_import() -> None:
    """In a fresh interpreter, where nobody else has imported it."""
    code = "import drydock; print(drydock.errors.NothingFree.__name__, drydock.fencing.write.__name__, drydock.connect.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("NothingFree write connect", "")
