"""Our own kinds, through the engine and on real folders: what they offer, what they refuse, what they clean up."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Clock, apply
from drydock_blueprints.scratch_dir import MARKER, ScratchDir, remove

from drydock.blueprint import ResourceInfo
from drydock.engine import Engine
from drydock.errors import BlueprintError, ConfigError, NeverPossible, NotFound, NothingFree, Refused
from drydock.model import Demand, Lease


def lease(engine: Engine, type: str = "host", **wanted: Any) -> Lease:
    return engine.lease(Demand(type, (), wanted), owner="t", wait_seconds=0)[0]


def name(lease: Lease) -> str:
    assert lease.resource is not None
    return lease.resource.name


# ---- host-pool


def hosts(*given: Any, **settings: Any) -> dict[str, Any]:
    return {"blueprint": {"lab": {"kind": "host-pool", "hosts": list(given), **settings}}}


def test_a_host_says_where_it_is(engine: Engine) -> None:
    apply(engine, hosts("h1", {"name": "h2", "address": "10.0.0.2", "port": 22, "attributes": {"arch": "arm64"}}))
    held = lease(engine, arch="arm64")
    assert held.resource is not None
    assert held.resource.attributes == {"arch": "arm64", "address": "10.0.0.2", "port": 22}
    assert [lock.key for lock in engine.store.slot_locks.all() if lock.holder.startswith("resource")] == ["host(h2)"]
    assert name(lease(engine)) == "h1"


def test_hosts_are_used_in_the_order_of_the_file(engine: Engine) -> None:
    apply(engine, hosts("z", "a", "m"))
    assert [name(lease(engine)) for _ in range(3)] == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ({"address": "10.0.0.1"}, 'host 1: missing "name"'),
        (7, 'host 1: missing "name"'),
        (["h1"], 'host 1: missing "name"'),
        ("", "a name may not be empty"),
        ("../h", "is not allowed"),
        ("-oProxyCommand=touch", 'may not start with "-"'),
        ("h\n1", "control character"),
        ("höst", "must be ASCII"),
        ("x" * 65, "longer than 64"),
        ({"name": "h1", "adress": "10.0.0.1"}, 'unknown key "adress"'),
        ({"name": "h1", "attributes": "arm64"}, '"attributes" must be a table'),
        ({"name": "h1", "address": ""}, "non-empty string"),
        ({"name": "h1", "address": 10}, "non-empty string"),
        ({"name": "h1", "address": "-oProxyCommand=touch"}, 'may not start with "-"'),
        ({"name": "h1", "address": "a b"}, "forbidden character"),
        ({"name": "h1", "address": "a;b"}, "forbidden character"),
        ({"name": "h1", "port": 0}, "port must be"),
        ({"name": "h1", "port": 65536}, "port must be"),
        ({"name": "h1", "port": True}, "port must be"),
        ({"name": "h1", "port": "22"}, "port must be"),
        ({"name": "h1", "port": 22, "attributes": {"port": 23}}, "given twice"),
        ({"name": "h1", "attributes": {"internal.x": 1}}, "reserved"),
    ],
)
def test_a_host_that_cannot_be_meant_is_refused_and_nothing_is_kept(
    engine: Engine, host: object, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        apply(engine, hosts(host))
    assert engine.store.offers.blueprints() == []


@pytest.mark.parametrize("given", [["h1", "h1"], ["h1", {"name": "h1"}], ["h1", "H1"]])
def test_a_host_is_listed_once(engine: Engine, given: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"listed twice|differ only by case"):
        apply(engine, hosts(*given))


@pytest.mark.parametrize("address", ["10.0.0.1", "fe80::1", "a-b.example.org", "under_score"])
def test_common_addresses_are_accepted(engine: Engine, address: str) -> None:
    apply(engine, hosts({"name": "h1", "address": address}))
    assert lease(engine, address=address).fence == 1


def test_one_host_is_in_one_pool(engine: Engine) -> None:
    pool = hosts("h1")
    pool["blueprint"]["other"] = {"kind": "host-pool", "hosts": ["h1"]}
    with pytest.raises(ConfigError, match='"h1" is in the pools "lab" and "other"'):
        apply(engine, pool)


def test_the_fence_of_a_host_goes_on_when_it_comes_back(engine: Engine) -> None:
    """Whoever checks fences would refuse the new holder for ever if counting began anew; in another pool neither."""
    apply(engine, hosts("h1", "h2"))
    for _ in range(3):
        held = lease(engine)
        engine.release(held.id)
    assert (name(held), held.fence) == ("h1", 3)
    engine.reclaim()
    apply(engine, hosts("h2"))
    assert [b.name for b in engine.store.offers.bindings()] == ["h2"]
    with pytest.raises(NotFound):
        engine.switch("binding:h1", enabled=False)
    apply(engine, hosts("h1"))
    held = lease(engine)
    assert (name(held), held.fence) == ("h1", 4)
    engine.release(held.id)
    engine.reclaim()
    apply(engine, hosts("h2"))
    apply(engine, {"blueprint": {"new": {"kind": "host-pool", "hosts": ["h1"]}}})
    assert engine.lease(Demand("host", ("new",)), owner="t", wait_seconds=0)[0].fence == 5


# ---- almanac-hosts


def almanac(devices: dict[str, Any], services: dict[str, list[str]], **blueprints: list[str]) -> dict[str, Any]:
    return {
        "blueprint": {n: {"kind": "almanac-hosts", "services": s} for n, s in blueprints.items()},
        "almanac": {"device": devices, "service": {n: {"devices": d} for n, d in services.items()}},
    }


def test_a_service_binds_devices(engine: Engine) -> None:
    apply(engine, almanac({"d1": {"address": "10.0.0.1"}, "d2": {}}, {"s": ["d1"]}, build=["s"]))
    held = lease(engine)
    assert held.resource is not None
    assert (held.resource.name, dict(held.resource.attributes)) == ("d1", {"address": "10.0.0.1"})
    assert "almanac.host.binding(d1)" in {lock.key for lock in engine.store.slot_locks.all()}
    with pytest.raises(NothingFree):
        lease(engine)


def test_a_device_is_one_thing_however_many_services_and_blueprints_name_it(engine: Engine) -> None:
    apply(engine, almanac({"d1": {}, "d2": {}}, {"s": ["d1"], "t": ["d1", "d2"]}, one=["s", "t"], two=["t"]))
    assert {name(lease(engine)), name(lease(engine))} == {"d1", "d2"}
    with pytest.raises(NothingFree):
        lease(engine)


def test_a_device_out_of_service_takes_no_new_lease_and_ends_none(engine: Engine) -> None:
    apply(engine, almanac({"d1": {}}, {"s": ["d1"]}, build=["s"]))
    held = lease(engine)
    apply(engine, almanac({"d1": {"enabled": False}}, {"s": ["d1"]}, build=["s"]))
    assert engine.store.leases.live()[0].id == held.id
    engine.release(held.id)
    with pytest.raises(NothingFree):
        lease(engine)
    apply(engine, almanac({"d1": {"enabled": True}}, {"s": ["d1"]}, build=["s"]))
    again = lease(engine)
    assert again.fence == 2


def test_a_changed_inventory_reaches_the_blueprints_of_other_files(engine: Engine) -> None:
    apply(engine, almanac({"d1": {}}, {"s": ["d1"]}, build=["s"]))
    apply(engine, almanac({"d2": {}}, {"s": ["d1", "d2"], "t": ["d2"]}, other=["t"]))
    assert {(b.blueprint, b.name) for b in engine.store.offers.bindings()} == {
        ("build", "d1"), ("build", "d2"), ("other", "d2"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"devices": {}}, 'unknown table "devices"'),
        ({"device": {"d1": 7}}, "must be a table"),
        ({"device": {"d1": {"enabled": "no"}}}, '"enabled" must be true or false'),
        ({"device": {"d1": {"adress": "x"}}}, 'unknown key "adress"'),
        ({"device": {"../d": {}}}, "is not allowed"),
        ({"device": {"d1": {}}, "service": {"s": {"devices": "d1"}}}, 'a table with a list "devices"'),
        ({"device": {"d1": {}}, "service": {"s": {"devices": ["d2"]}}}, 'no device "d2"; known devices: "d1"'),
        ({"device": {"d1": {}}, "service": {"s": {"devices": [["d1"]]}}}, "no device"),
        ({"device": {"d1": {}}}, 'no almanac service "s"'),
    ],
)
def test_an_inventory_that_cannot_be_meant_is_refused(engine: Engine, source: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        apply(engine, {"blueprint": {"build": {"kind": "almanac-hosts", "services": ["s"]}}, "almanac": source})
    assert engine.store.offers.sources() == {}


# ---- scratch-dir


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "scratch"
    root.mkdir()
    (root / MARKER).touch()
    return root


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder that must still be whole at the end."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "precious").touch()
    return folder


@pytest.fixture
def scratch(engine: Engine, root: Path) -> Engine:
    apply(engine, {"blueprint": {"scratch": {"kind": "scratch-dir", "root": str(root), "limit": 2}}})
    return engine


def folder(lease: Lease) -> Path:
    assert lease.resource is not None
    return Path(lease.resource.attributes["path"])


def entries(root: Path) -> set[str]:
    return {entry.name for entry in root.iterdir()} - {MARKER}


def test_each_lease_has_an_empty_folder_of_its_own_that_goes_with_it(scratch: Engine, root: Path) -> None:
    one, two = lease(scratch, "scratch-dir"), lease(scratch, "scratch-dir")
    assert {folder(one), folder(two)} == {root / "scratch-0", root / "scratch-1"}
    assert folder(one).stat().st_mode & 0o7777 == 0o700
    with pytest.raises(NothingFree):
        lease(scratch, "scratch-dir")
    (folder(one) / "left").write_text("behind")
    scratch.release(one.id)
    assert entries(root) == {folder(two).name}
    again = lease(scratch, "scratch-dir")
    assert (folder(again), list(folder(again).iterdir())) == (folder(one), [])


def test_what_a_crash_left_is_not_the_next_leases(scratch: Engine, root: Path) -> None:
    (root / "scratch-0" / "deep").mkdir(parents=True)
    (root / "scratch-0" / "deep" / "old").touch()
    assert list(folder(lease(scratch, "scratch-dir")).iterdir()) == []


def test_a_link_in_place_of_the_folder_is_removed_and_not_followed(scratch: Engine, victim: Path) -> None:
    """PLUGIN-074"""
    held = lease(scratch, "scratch-dir")
    folder(held).rmdir()
    folder(held).symlink_to(victim)
    scratch.release(held.id)
    assert not folder(held).is_symlink()
    assert entries(victim) == {"precious"}


def test_a_link_within_the_folder_is_not_followed(scratch: Engine, victim: Path) -> None:
    held = lease(scratch, "scratch-dir")
    (folder(held) / "link").symlink_to(victim)
    victim.chmod(0o750)
    scratch.release(held.id)
    assert not folder(held).exists()
    assert entries(victim) == {"precious"}
    assert victim.stat().st_mode & 0o7777 == 0o750


def test_a_file_in_place_of_the_folder_is_removed(scratch: Engine, root: Path) -> None:
    held = lease(scratch, "scratch-dir")
    folder(held).rmdir()
    folder(held).write_text("not a folder")
    scratch.release(held.id)
    assert entries(root) == set()
    assert scratch.store.leases.live() == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user reaches too."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


def as_a_mortal(do: Callable[[], None]) -> None:
    """Do it as a user who is not root, since modes are nothing to root."""
    if os.geteuid() != 0:
        do()
        return
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            do()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("mode", [0o500, 0o400, 0o300, 0o000])
def test_folders_that_the_holder_locked_up_are_removed_all_the_same(open_folder: Path, mode: int) -> None:
    left = open_folder / "scratch-0"

    def lock_up_and_remove() -> None:
        (left / "a" / "b").mkdir(parents=True)
        (left / "a" / "b" / "file").touch()
        (left / "a" / "b" / "file").chmod(0)
        for inner in (left / "a" / "b", left / "a", left):
            inner.chmod(mode)
        remove(left)

    as_a_mortal(lock_up_and_remove)
    assert not left.exists()


def test_a_label_stays_with_the_folder_until_it_is_reclaimed(scratch: Engine, clock: Clock) -> None:
    held = lease(scratch, "scratch-dir", label="nightly")
    assert held.resource is not None
    assert held.resource.attributes["label"] == "nightly"
    lease(scratch, "scratch-dir", label="weekly")
    scratch.release(held.id)
    with pytest.raises(NothingFree):  # the idle one is too young to be taken away
        lease(scratch, "scratch-dir", label="weekly")
    again = lease(scratch, "scratch-dir", label="nightly")
    assert again.resource is not None
    assert (again.resource.id, again.fence) == (held.resource.id, (held.fence or 0) + 1)
    scratch.release(again.id)
    clock.forward(181)
    new = lease(scratch, "scratch-dir", label="weekly")
    assert folder(new) == folder(held)
    assert new.fence > (again.fence or 0)  # the folder is the same one, and must not take an older holder for a newer
    assert scratch.store.resources.live()[-1].reclaimed_for is None


def test_nothing_but_a_label_can_be_asked_for(scratch: Engine) -> None:
    with pytest.raises(NeverPossible):
        lease(scratch, "scratch-dir", size="10G")
    for poisoned in ("../victim", "", "-rf", "a\nb", 7, None, ["x"]):
        with pytest.raises(ConfigError, match='blueprint "scratch": label'):
            lease(scratch, "scratch-dir", label=poisoned)
    assert scratch.store.leases.live() == []


@pytest.mark.parametrize(
    "poisoned", ["..", ".", "", "../victim", "/etc", "a/b", "scratch-0/../../victim", "-rf", ".drydock-root", "a\0b"]
)
@pytest.mark.parametrize("hook", ["activate", "destroy"])
def test_a_poisoned_name_deletes_nothing(root: Path, victim: Path, poisoned: str, hook: str) -> None:
    """The path comes from the name, which is checked again at the moment of deleting; attributes are never a path."""
    kind = ScratchDir("scratch", {"root": str(root)})
    with pytest.raises(ConfigError, match="name"):
        getattr(kind, hook)(ResourceInfo(1, poisoned, "scratch-dir", {"path": str(victim)}))
    kind.destroy(ResourceInfo(1, "scratch-0", "scratch-dir", {"path": str(victim)}))
    assert entries(victim) == {"precious"}
    assert (root / MARKER).exists()


@pytest.mark.parametrize("case", ["no marker", "link"])
def test_a_root_that_is_not_ours_is_refused_with_code_9(
    cli: Cli, root: Path, tmp_path: Path, victim: Path, case: str
) -> None:
    given = victim
    if case == "link":
        given = tmp_path / "link"
        given.symlink_to(root)
    (tmp_path / "pool.toml").write_text(f'[blueprint.scratch]\nkind = "scratch-dir"\nroot = "{given}"\n')
    done = cli("apply", str(tmp_path / "pool.toml"))
    assert done.returncode == 9
    assert {"no marker": MARKER, "link": "symbolic link"}[case] in done.stderr
    assert cli("blueprints", "--json").objects == []


@pytest.mark.parametrize(("given", "sentence"), [("scratch", "absolute path"), ("/nowhere/at/all", "no folder")])
def test_a_root_that_cannot_be_meant_is_refused(engine: Engine, given: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        apply(engine, {"blueprint": {"scratch": {"kind": "scratch-dir", "root": given}}})


def test_a_root_inside_another_is_refused(engine: Engine, root: Path) -> None:
    """POOL-070: a lease of the outer one could remove the inner one."""
    inner = root / "scratch-0"
    inner.mkdir()
    (inner / MARKER).touch()
    with pytest.raises(ConfigError, match="lies inside another"):
        apply(engine, {"blueprint": {"scratch": {"kind": "scratch-dir", "root": str(inner)}}})


def test_one_root_spelt_in_two_ways_is_one_root(engine: Engine, root: Path) -> None:
    (root.parent / "alias").symlink_to(root.parent)
    spelt = (str(root), str(root.parent / "alias" / root.name))
    apply(engine, {"blueprint": {f"s{i}": {"kind": "scratch-dir", "root": path} for i, path in enumerate(spelt)}})
    held = [engine.lease(Demand("scratch-dir", (name,)), owner="tester")[0] for name in ("s0", "s1")]
    assert len({folder(lease).name for lease in held}) == 2


def test_a_root_that_stops_being_ours_is_not_touched_until_it_is_again(
    scratch: Engine, root: Path, clock: Clock
) -> None:
    """The marker is looked for at every step: the lease stays where it is, and goes when the marker is back."""
    held = lease(scratch, "scratch-dir")
    (root / MARKER).unlink()
    scratch.release(held.id)
    assert folder(held).is_dir()
    assert [now.status for now in scratch.store.leases.live()] == ["released"]
    with pytest.raises((BlueprintError, Refused)):
        lease(scratch, "scratch-dir")
    (root / MARKER).touch()
    clock.forward(60)
    scratch.tend()
    assert scratch.store.leases.live() == []
    assert not folder(held).exists()
