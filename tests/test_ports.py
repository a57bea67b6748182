"""`port-range`, on real ports: what it offers and refuses, and that nobody is given a port that he cannot bind."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import LAB, Cli, Clock, apply
from drydock_blueprints.port_range import PortRange
from ports import ADDRESS, free_ports, is_free, listening
from processes.commands import Run

import drydock
from drydock.blueprint import Gone, LeaseInfo, ResourceInfo
from drydock.engine import Engine
from drydock.errors import BlueprintError, ConfigError, NothingFree
from drydock.model import Demand, Lease

LEASE = LeaseInfo(1, "t", {}, 1)


def pool(ports: list[int], **settings: Any) -> dict[str, Any]:
    return {"blueprint": {"ports": {"kind": "port-range", "ports": f"{ports[0]}-{ports[-1]}", **settings}}}


def kind(ports: str, address: str = ADDRESS, *, hand_over: bool = True) -> PortRange:
    return PortRange("ports", {"ports": ports, "address": address, "hand_over": hand_over})


def resource(port: int) -> ResourceInfo:
    return ResourceInfo(1, str(port), "port", {"address": ADDRESS, "port": port})


def lease(engine: Engine, **wanted: Any) -> Lease:
    return engine.lease(Demand("port", (), wanted), owner="t", wait_seconds=0)[0]


def port_of(lease: Lease) -> int:
    assert lease.resource is not None
    return int(lease.resource.name)


def withheld(engine: Engine) -> list[str]:
    return [binding.name for binding in engine.store.offers.bindings() if not binding.enabled]


def events(engine: Engine, kind: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in engine.store.events.latest(50, event=kind)]


# ---- what it says


def test_a_port_says_its_number_and_address_and_is_one_thing_whatever_the_address() -> None:
    port, other = kind("9000-9001, 8080").bindings(), list(kind("8080", "0.0.0.0").bindings())
    assert [(b.name, b.slot_lock.key, b.attributes) for b in port] == [
        ("9000", "tcp-port(9000)", {"address": ADDRESS, "port": 9000}),
        ("9001", "tcp-port(9001)", {"address": ADDRESS, "port": 9001}),
        ("8080", "tcp-port(8080)", {"address": ADDRESS, "port": 8080}),
    ]
    assert other[0].slot_lock.key == "tcp-port(8080)"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, 'missing setting "ports"'),
        ({"ports": 9000}, '"ports" must be of type str, not "9000"'),
        ({"ports": ""}, '"ports": not a port or a range: ""'),
        ({"ports": "http"}, '"ports": not a port or a range: "http"'),
        ({"ports": "-1"}, '"ports": not a port or a range: "-1"'),
        ({"ports": "9000-"}, '"ports": not a port or a range: "9000-"'),
        ({"ports": "9000..9100"}, '"ports": not a port or a range: "9000..9100"'),
        ({"ports": "9000,,9001"}, '"ports": not a port or a range: ""'),
        ({"ports": "٩٠٠٠"}, '"ports": not a port or a range'),
        ({"ports": "0"}, 'a port must be a whole number from 1 to 65535, not "0"'),
        ({"ports": "1-70000"}, 'a port must be a whole number from 1 to 65535, not "70000"'),
        ({"ports": "9100-9000"}, 'the range "9100-9000" ends before it begins'),
        ({"ports": "9000-9010, 9010"}, '"ports": 9010 is listed twice'),
        ({"ports": "9000", "address": "localhost"}, '"address" must be an IP address, not "localhost"'),
        ({"ports": "9000", "address": ""}, '"address" must be an IP address, not ""'),
        ({"ports": "9000", "hand_over": "no"}, '"hand_over" must be of type bool'),
        ({"ports": "9000", "first": 1}, 'unknown setting "first"'),
    ],
)
def test_ports_that_cannot_be_meant_are_refused_when_they_are_applied(
    engine: Engine, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        apply(engine, {"blueprint": {"ports": {"kind": "port-range", **settings}}})
    assert sentence in str(refused.value)


def test_a_port_cannot_be_in_two_pools_also_on_another_address(engine: Engine) -> None:
    both = pool([9000, 9010])
    both["blueprint"]["wide"] = {"kind": "port-range", "ports": "9010-9020", "address": "0.0.0.0"}
    with pytest.raises(ConfigError, match=r'"9010" is in the pools "ports" and "wide"'):
        apply(engine, both)


# ---- what it finds outside


def test_a_port_that_somebody_listens_on_is_gone_and_one_that_nobody_has_is_left_alone() -> None:
    mine, theirs = free_ports(2)
    ports = kind(f"{mine}-{theirs}")
    with listening(theirs):
        ports.activate_lease(resource(mine), LEASE)
        assert is_free(mine)
        with pytest.raises(Gone, match=f"port {theirs} of {ADDRESS} is in use by somebody who did not lease it"):
            ports.activate_lease(resource(theirs), LEASE)


def test_a_port_that_an_outgoing_connection_came_to_have_is_gone() -> None:
    mine, theirs = free_ports(2)
    with listening(theirs), socket.socket() as client:
        client.bind((ADDRESS, mine))
        client.connect((ADDRESS, theirs))
        with pytest.raises(Gone):
            kind(str(mine)).activate_lease(resource(mine), LEASE)


def test_a_port_whose_last_holder_has_just_closed_a_connection_can_be_bound() -> None:
    """The side that closes first leaves the port in TIME_WAIT for a minute."""
    [port] = free_ports(1)
    with listening(port) as server, socket.create_connection((ADDRESS, port)) as client:
        with server.accept()[0]:
            pass
        assert client.recv(1) == b""
    assert not is_free(port)
    kind(str(port)).activate_lease(resource(port), LEASE)


def test_an_address_that_this_machine_has_not_is_an_error_and_no_port_in_use() -> None:
    [port] = free_ports(1)
    with pytest.raises(OSError, match=f"port {port} of 203.0.113.7 cannot be bound: "):
        list(kind(str(port), "203.0.113.7").missing(()))


def test_what_is_in_use_outside_is_missing_and_what_is_held_is_not_looked_at() -> None:
    ports = free_ports(4)
    with ExitStack() as outside:
        for port in ports[1:3]:
            outside.enter_context(listening(port))
        missing = list(kind(f"{ports[0]}-{ports[3]}").missing({str(ports[1])}))
    assert missing == [str(ports[2])]


def test_also_an_ipv6_port_is_really_bound() -> None:
    [port] = free_ports(1)
    about = ResourceInfo(1, str(port), "port", {"address": "::1", "port": port})
    ports = kind(str(port), "::1")
    ports.activate_lease(about, LEASE)
    with socket.create_server(("::1", port), family=socket.AF_INET6), pytest.raises(Gone):
        ports.activate_lease(about, LEASE)


def test_who_asks_is_given_a_port_that_can_be_bound_and_the_others_are_withheld(engine: Engine) -> None:
    ports = free_ports(3)
    with listening(ports[0]), listening(ports[1]):
        apply(engine, pool(ports))
        assert withheld(engine) == [str(ports[0]), str(ports[1])]
        assert port_of(lease(engine)) == ports[2]
        with pytest.raises(NothingFree):
            lease(engine)


def test_a_port_that_was_taken_since_the_last_look_is_passed_over(engine: Engine, clock: Clock) -> None:
    ports = free_ports(3)
    apply(engine, pool(ports))
    with listening(ports[0]):
        held = lease(engine)
        assert port_of(held) == ports[1]
        assert withheld(engine) == [str(ports[0])]
        [gone] = events(engine, "resource.gone")
        assert "in use by somebody who did not lease it" in gone["reason"]
        assert not [lock for lock in engine.store.slot_locks.all() if lock.key == f"tcp-port({ports[0]})"]
    clock.forward(PortRange.observe_every)
    engine.tend()
    assert withheld(engine) == []
    assert port_of(lease(engine)) == ports[0], "the next look finds that it is free again"


def test_a_port_that_was_idle_and_is_taken_now_is_passed_over(engine: Engine) -> None:
    ports = free_ports(2)
    apply(engine, pool(ports))
    engine.release(lease(engine).id)
    with listening(ports[0]):
        assert port_of(lease(engine)) == ports[1]


def test_several_at_once_are_all_ports_that_can_be_bound(engine: Engine) -> None:
    ports = free_ports(5)
    apply(engine, pool(ports))
    with listening(ports[1]), listening(ports[2]):
        held = engine.lease(Demand("port"), owner="t", count=3, wait_seconds=0)
    assert sorted(map(port_of, held)) == [ports[0], ports[3], ports[4]]


def test_where_all_are_taken_the_request_waits_and_nothing_of_it_is_left(engine: Engine) -> None:
    ports = free_ports(2)
    apply(engine, pool(ports))
    with listening(ports[0]), listening(ports[1]), pytest.raises(NothingFree):
        lease(engine)
    assert engine.store.slot_locks.all() == []


def test_a_port_that_its_holder_listens_on_is_not_missing_when_he_gives_it_back(engine: Engine, clock: Clock) -> None:
    [port] = free_ports(1)
    apply(engine, pool([port]))
    held = lease(engine)
    with listening(port):
        clock.forward(PortRange.observe_every)
        engine.tend()
    engine.release(held.id)
    assert port_of(lease(engine)) == port


def test_a_port_that_was_leased_during_a_look_is_not_missing_afterwards(
    connect: Callable[..., Engine], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new holder listens before the look has come to it, and gives it back before the look is over."""
    [port] = free_ports(1)
    looker, user = connect(), connect()
    apply(user, pool([port]))
    looks = PortRange.missing

    def missing(self: PortRange, held: Any) -> list[str]:
        mine = lease(user)
        with listening(port_of(mine)):
            found = list(looks(self, held))
        user.release(mine.id)
        assert found == [str(port)]
        return found

    monkeypatch.setattr(PortRange, "missing", missing)
    clock.forward(PortRange.observe_every)
    looker.tend()
    assert withheld(user) == []


def test_what_cannot_be_bound_for_another_reason_breaks_the_lease_and_says_why(engine: Engine) -> None:
    [port] = free_ports(1)
    apply(engine, pool([port], address="203.0.113.7"))
    [failed] = events(engine, "blueprint.observe-failed")
    assert f"port {port} of 203.0.113.7 cannot be bound" in failed["error"]
    with pytest.raises(BlueprintError, match=f"port {port} of 203.0.113.7 cannot be bound: "):
        lease(engine)


# ---- what `drydock run` hands over

TAKES = """
import socket
server = socket.socket(fileno=3)
"""
BINDS = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((os.environ["DRYDOCK_ATTR_ADDRESS"], int(os.environ["DRYDOCK_ATTR_PORT"])))
"""
SERVES = """
server.listen()
with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
    accepted.sendall(b"hello")
    say(client.recv(5).decode(), server.getsockname()[1])
"""
TOLD = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"


def started(cli: Cli, code: str, *options: str, **environment: str) -> Run:
    return Run(cli, code, "-t", "port", "--no-wait", *options, **environment)


@pytest.fixture
def apply_here(path: Path, store_address: str) -> Callable[[dict[str, Any]], None]:
    def apply(pool: dict[str, Any]) -> None:
        with drydock.connect(store_address) as dock:
            dock.apply(pool)

    return apply


if sys.platform == "linux":  # nothing is handed over elsewhere

    @pytest.mark.parametrize("code", [TAKES, BINDS], ids=["that takes the socket", "that binds the port itself"])
    def test_a_command_can_listen_on_its_port(cli: Cli, apply_here: Callable[..., None], code: str) -> None:
        [port] = free_ports(1)
        apply_here(pool([port]))
        with started(cli, code + SERVES) as run:
            run.expect(f"hello {port}")
            assert run.end() == (0, "")

    def test_a_command_is_told_of_its_sockets_as_systemd_would(cli: Cli, apply_here: Callable[..., None]) -> None:
        [port] = free_ports(1)
        apply_here(pool([port]))
        code = f"say(int(os.environ['LISTEN_PID']) == os.getpid(), *map(os.environ.get, {TOLD[1:]}), *os.listdir('/dev/fd')[:-1])"
        outer = {"LISTEN_PID": "1", "LISTEN_FDS": "9", "LISTEN_PIDFDID": "7"}
        with started(cli, code + "; say(os.environ.get('LISTEN_PIDFDID'))", **outer) as run:
            run.expect(f"True 1 {port} 0 1 2 3", "None")
            assert run.end() == (0, "")

    def test_several_leases_come_with_their_sockets_in_their_order(cli: Cli, apply_here: Callable[..., None]) -> None:
        ports = free_ports(3)
        apply_here(pool(ports))
        code = "import socket\nsay(os.environ['DRYDOCK_NAMES'], os.environ['LISTEN_FDNAMES'])\n"
        code += "say(*(socket.socket(fileno=n).getsockname()[1] for n in (3, 4, 5)))"
        with started(cli, code, "--count", "3") as run:
            names, fd_names = run.hear().split()
            assert sorted(names.split(",")) == [str(port) for port in ports]
            assert names.split(",") == fd_names.split(":")
            run.expect(" ".join(fd_names.split(":")))
            assert run.end() == (0, "")

    def test_nobody_can_have_the_port_before_the_command_has_bound_it(
        cli: Cli, apply_here: Callable[..., None]
    ) -> None:
        [port] = free_ports(1)
        apply_here(pool([port]))
        with started(cli, "say('ready'); hear()" + BINDS + SERVES) as run:
            run.expect("ready")
            assert not is_free(port)
            run.tell()
            run.expect(f"hello {port}")
            assert run.end() == (0, "")

    def test_nothing_of_ours_listens_on_when_the_command_has_closed_its_socket(
        cli: Cli, apply_here: Callable[..., None]
    ) -> None:
        [port] = free_ports(1)
        apply_here(pool([port]))
        with started(cli, TAKES + "server.listen(); server.close(); say('closed'); hear()") as run:
            run.expect("closed")
            assert is_free(port)

    def test_a_port_that_is_taken_between_the_grant_and_our_look_is_given_back_for_another(
        cli: Cli, apply_here: Callable[..., None], tmp_path: Path
    ) -> None:
        ports = free_ports(2)
        (tmp_path / "rushed.py").write_text(RUSHED)
        rushed = pool(ports)
        rushed["blueprint"]["ports"]["kind"] = "rushed"
        (tmp_path / "pool.json").write_text(json.dumps(rushed))
        environment = {"DRYDOCK_BLUEPRINTS": str(tmp_path), "TAKEN": str(tmp_path / "taken")}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            apply_here(rushed)
        with started(cli, TAKES + SERVES + "say(os.environ['DRYDOCK_LEASE'])", **environment) as run:
            run.expect(f"hello {ports[1]}", "2")
            assert run.end() == (0, "")


#: the first time that it is asked for a socket, somebody outside was faster
RUSHED = """
import os, socket
from drydock_blueprints import port_range

class Rushed(port_range.PortRange):
    def sockets(self, resource):
        try:
            os.close(os.open(os.environ["TAKEN"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            Rushed.outside = socket.create_server((resource.attributes["address"], resource.attributes["port"]))
        return super().sockets(resource)
"""


def test_many_processes_listen_on_what_they_leased_while_others_do_not_ask(path: Path) -> None:
    """`scripts/port_rush.py` does it with ten thousand leases."""
    script = Path(__file__).parent.parent / "scripts" / "port_rush.py"
    done = subprocess.run([sys.executable, script, "32", "4"], capture_output=True, text=True, check=True)
    came = [next(iter(json.loads(line).items())) for line in done.stdout.splitlines()]
    assert [(name, found["leases"], found["failed"], found["astray"]) for name, found in came] == [
        ("asked", 32, 0, 0),
        ("run", 4, 0, 0),
    ], done.stderr


def test_nothing_is_handed_over_where_the_pool_file_says_so(cli: Cli, apply_here: Callable[..., None]) -> None:
    [port] = free_ports(1)
    apply_here(pool([port], hand_over=False))
    careless = BINDS.replace("server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n", "")
    with started(cli, f"say(*map(os.environ.get, {TOLD}))" + careless + SERVES) as run:
        run.expect("None None None", f"hello {port}")
        assert run.end() == (0, "")


def test_a_host_comes_without_sockets(cli: Cli, apply_here: Callable[..., None]) -> None:
    apply_here(LAB)
    with Run(cli, f"say(*map(os.environ.get, {TOLD}))") as run:
        run.expect("None None None")
        assert run.end() == (0, "")


@pytest.mark.parametrize(
    ("does", "sentence"),
    [
        ("return [7]", "must give open sockets, got 7"),
        ("raise ValueError('no')", "ValueError: no"),
        ("raise Gone('it burns')", "Gone: it burns"),
    ],
)
def test_a_kind_that_cannot_open_its_sockets_costs_the_lease_and_no_command_runs(
    cli: Cli, path: Path, tmp_path: Path, does: str, sentence: str
) -> None:
    kind = "from drydock.blueprint import *\nclass Bad(Pool):\n    type = 'host'\n"
    kind += "    def bindings(self): yield Binding('h1', slot_lock('h1'))\n"
    (tmp_path / "bad.py").write_text(kind + f"    def sockets(self, resource): {does}\n")
    (tmp_path / "pool.toml").write_text('[blueprint.bad]\nkind = "bad"\n')
    bad = {"DRYDOCK_BLUEPRINTS": str(tmp_path)}
    assert cli("apply", str(tmp_path / "pool.toml"), **bad).returncode == 0
    ran = cli("run", "-t", "host", "--", "echo", "ran", **bad)
    assert (ran.returncode, ran.stdout) == (6, "")
    assert f'blueprint "bad" failed in sockets: {sentence}' in ran.stderr
    assert cli("locks", "--json", **bad).objects == [] or all(
        lock["holder"].startswith("resource:") for lock in cli("locks", "--json", **bad).objects
    )
