"""The kind `process`, with real services: started once, stopped wholly, and noticed when they have died."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Clock, apply
from drydock_blueprints.process import Place, Process, is_running, listens
from drydock_blueprints.scratch_dir import MARKER

from drydock.blueprint import Gone, Local, ResourceInfo, Support
from drydock.discovery import checked_settings
from drydock.engine import Engine
from drydock.errors import BlueprintError, ConfigError, LeaseLost, Refused
from drydock.model import Demand
from drydock.testing.children import Child

#: says in its folder who it is, and listens; what else it does is its first argument
SERVICE = """
import os, signal, socket, sys, time
what, port = sys.argv[1], sys.argv[2]
def note():
    with open("pids", "a") as pids:
        print(os.getpid(), file=pids)
note()
if what == "ends":
    print("no more oil")
    sys.exit(3)
if what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what == "polite":
    def leave(*_):
        open("../left", "w").close()
        sys.exit()
    signal.signal(signal.SIGTERM, leave)
if what == "family" and not os.fork():  # one that stays in the group, and one that leaves it as daemons do
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note()
    os.open("/dev/null", 0)
    time.sleep(600)
server = socket.create_server(("127.0.0.1", int(port)))
while what == "family" and len(open("pids").readlines()) < 3:
    time.sleep(0.001)
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    if what == "deaf-later":
        server.close()
        open("deaf", "w").write("yes")
        time.sleep(600)
    connection.close()
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "services"
    root.mkdir()
    (root / MARKER).touch()
    yield root
    for control in root.glob(".web-*"):  # a test that failed may have left some, and a keeper goes with its folder
        for file in control.iterdir():
            file.unlink()
        control.rmdir()


Made = Callable[..., Process]


@pytest.fixture
def make(root: Path) -> Made:
    def make(what: str = "plain", **changed: Any) -> Process:
        given = {
            "command": [sys.executable, "-c", SERVICE, what, "{port}"],
            "folder": str(root), "port_type": "port", "stop_within": "20s", **changed,
        }  # fmt: skip
        kind = Process("web", checked_settings(Process, given, "web"))
        kind.check()
        return kind

    return make


@pytest.fixture
def service(root: Path, port: int) -> ResourceInfo:
    on = Support(str(port), "port", {"port": port, "address": "127.0.0.1"}, None)
    return ResourceInfo(1, "web-0", "web", {"folder": str(root / "web-0")}, on)


@pytest.fixture
def place(root: Path) -> Place:
    return Place(root, "web-0")


def processes(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def wait_for(file: Path) -> None:
    """Until something is written there."""
    deadline = time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def wait_until_gone(place: Place) -> None:
    """Until its keeper has seen to the end of it."""
    lock = os.open(place.lock, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.close(lock)


# ---- starting and stopping


def test_it_listens_when_it_is_there_and_nothing_is_left_when_it_is_gone(
    make: Made, service: ResourceInfo, root: Path, port: int
) -> None:
    kind = make()
    kind.activate(service)
    assert listens("127.0.0.1", port) == ""
    assert kind.interface(service) == Local(str(root / "web-0"))
    assert (root / "web-0" / "log").stat().st_mode & 0o777 == 0o600
    kind.observe(service)
    [pid] = processes(root / "web-0")
    kind.destroy(service)
    assert not lives(pid)
    assert [entry.name for entry in root.iterdir()] == [MARKER]
    with pytest.raises(ConnectionRefusedError):
        listens("127.0.0.1", port)


def test_both_hooks_may_run_twice(make: Made, service: ResourceInfo, root: Path, port: int) -> None:
    """The second activation ends what the first has started: it could not have the port otherwise."""
    kind = make()
    kind.destroy(service)
    kind.activate(service)
    [first] = processes(root / "web-0")
    kind.activate(service)
    [second] = processes(root / "web-0")
    assert first != second
    assert not lives(first)
    assert listens("127.0.0.1", port) == ""
    kind.destroy(service)
    kind.destroy(service)
    assert not lives(second)


def test_it_is_asked_to_end_before_it_is_killed(make: Made, service: ResourceInfo, root: Path) -> None:
    kind = make("polite")
    kind.activate(service)
    kind.destroy(service)
    assert (root / "left").exists()


def test_one_that_will_not_end_is_killed(make: Made, service: ResourceInfo, root: Path) -> None:
    kind = make("stubborn", stop_within="10ms")
    kind.activate(service)
    [pid] = processes(root / "web-0")
    kind.destroy(service)
    assert not lives(pid)


@pytest.mark.parametrize("how", ["destroyed", "killed"])
def test_its_children_go_with_it_also_those_that_have_left_its_group(
    make: Made, service: ResourceInfo, root: Path, place: Place, how: str
) -> None:
    if sys.platform != "linux":  # elsewhere what has left the group is nobody's child
        return
    kind = make("family", stop_within="100ms", ready={"command": ["grep", "-q", "listening", "log"]})
    kind.activate(service)
    family = processes(root / "web-0")
    assert len(family) == 3
    assert len({os.getsid(pid) for pid in family}) == 2
    if how == "killed":
        os.kill(family[0], signal.SIGKILL)
        wait_until_gone(place)
    else:
        kind.destroy(service)
    assert not [pid for pid in family if lives(pid)]
    kind.destroy(service)


def test_the_signal_that_it_is_asked_with_can_be_chosen(make: Made, service: ResourceInfo, root: Path) -> None:
    kind = make("stubborn", stop_signal="INT")
    kind.activate(service)
    kind.destroy(service)  # within 20 seconds: it ignores SIGTERM
    assert [entry.name for entry in root.iterdir()] == [MARKER]


def test_it_ends_when_somebody_removes_what_belongs_to_its_keeper(
    make: Made, service: ResourceInfo, root: Path, place: Place
) -> None:
    """As when all of it is thrown away: nobody would know of the service any more."""
    make().activate(service)
    lock = os.open(place.lock, os.O_RDWR)
    for file in place.control.iterdir():
        file.unlink()
    place.control.rmdir()
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.close(lock)
    assert not lives(processes(root / "web-0")[0])


def test_when_its_keeper_is_killed_it_goes_too(make: Made, service: ResourceInfo, root: Path, place: Place) -> None:
    if sys.platform != "linux":
        return
    kind = make()
    kind.activate(service)
    [pid] = processes(root / "web-0")
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    wait_until_gone(place)
    with pytest.raises(Gone, match="it was killed, with its keeper"):
        kind.observe(service)
    deadline = time.monotonic() + 60
    while lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.001)


# ---- what it is told


def test_what_is_filled_in_and_what_stays(make: Made, service: ResourceInfo, root: Path, port: int) -> None:
    show = "import os, sys; print(sys.argv[1:], sorted(os.environ), os.environ['URL'], os.getcwd(), sep='\\n')"
    kind = make(
        command=[sys.executable, "-c", show, "{name}", "x{address}:{port}", '{"port": {port}}', "{other}", "$HOME"],
        environment={"URL": "http://{address}:{port}"},
        ready={"command": ["test", "-s", "log"]},
    )
    with contextlib.suppress(RuntimeError):  # it ends at once, perhaps before it was looked at
        kind.activate(service)
    wait_until_gone(Place(root, "web-0"))
    arguments, names, url, folder = (root / "web-0" / "log").read_text().splitlines()
    assert arguments == str(["web-0", f"x127.0.0.1:{port}", f'{{"port": {port}}}', "{other}", "$HOME"])
    assert url == f"http://127.0.0.1:{port}"
    assert folder == str(root / "web-0")
    assert not [name for name in eval(names) if name.startswith(("DRYDOCK", "XDG"))]


# ---- ready, and gone


def test_one_that_ends_before_it_is_ready_says_how_and_what_it_said_last(make: Made, service: ResourceInfo) -> None:
    with pytest.raises(RuntimeError, match="it ended with exit status 3; it said last: no more oil"):
        make("ends").activate(service)


def test_one_that_cannot_be_started_says_why(make: Made, service: ResourceInfo) -> None:
    with pytest.raises(RuntimeError, match="could not be started: No such file"):
        make(command=["/nowhere/at/all"]).activate(service)


@pytest.mark.parametrize(
    ("ready", "why"),
    [
        ({"port": True}, "Connection refused"),
        ({"http": "/health"}, "Connection refused"),
        ({"command": ["false"]}, '"false" ended with exit status 1'),
    ],
)
def test_one_that_does_not_become_ready_is_not_waited_for_longer_than_is_said(
    make: Made, service: ResourceInfo, ready: dict[str, Any], why: str
) -> None:
    kind = make(command=["sleep", "600"], ready=ready, ready_within="20ms")
    with pytest.raises(TimeoutError, match=f"not ready within 0.02s: .*{why}"):
        kind.activate(service)
    kind.destroy(service)


def test_an_http_server_is_ready_when_it_answers_well(make: Made, service: ResourceInfo) -> None:
    serve = [sys.executable, "-m", "http.server", "--bind", "{address}", "{port}"]
    kind = make(command=serve, ready={"http": "/"})
    kind.activate(service)
    kind.destroy(service)
    kind = make(command=serve, ready={"http": "/nowhere"}, ready_within="2s")
    with pytest.raises(TimeoutError, match="/nowhere answers 404"):
        kind.activate(service)
    kind.destroy(service)


def test_one_that_has_ended_is_gone_and_says_how(make: Made, service: ResourceInfo, root: Path, place: Place) -> None:
    kind = make()
    kind.activate(service)
    os.kill(processes(root / "web-0")[0], signal.SIGSEGV)
    wait_until_gone(place)
    with pytest.raises(Gone, match="it was ended by signal 11; it said last: listening"):
        kind.observe(service)


def test_one_that_does_not_answer_any_more_is_gone(
    make: Made, service: ResourceInfo, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drydock_blueprints.process.PAUSE_SECONDS", 0.01)
    kind = make("deaf-later")
    kind.activate(service)
    wait_for(place.folder / "deaf")  # from when it was first asked, to see whether it was ready
    with pytest.raises(Gone, match=r"does not answer any more: .*refused"):
        kind.observe(service)
    assert is_running(place)
    kind.destroy(service)


def test_a_port_that_answers_itself_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, the system may choose that very port for the end that asks, and connect it with itself."""
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        alone.connect(alone.getsockname())
        monkeypatch.setattr(socket, "create_connection", lambda *_: alone)
        assert listens("127.0.0.1", 1) == "nobody listens"


# ---- crashes

STARTER = """
from drydock_blueprints.process import Process
from drydock.blueprint import ResourceInfo, Support
settings, port = eval(sys.argv[1]), int(sys.argv[2])
kind = Process("web", settings)
kind._wait_until_ready = lambda *_: (say("started"), hear())
kind.activate(ResourceInfo(1, "web-0", "web", {}, Support("p", "port", {"port": port}, None)))
"""


@pytest.mark.parametrize("hook", ["activate", "destroy"])
def test_what_a_killed_activation_has_started_is_found_and_ended(
    make: Made, service: ResourceInfo, root: Path, place: Place, port: int, hook: str
) -> None:
    kind = make()
    with Child(STARTER, dict(kind.settings), port) as starter:
        starter.expect("started")
    assert is_running(place)
    getattr(kind, hook)(service)
    if hook == "activate":
        assert listens("127.0.0.1", port) == ""
        assert len(processes(root / "web-0")) == 1
        kind.destroy(service)
    assert [entry.name for entry in root.iterdir()] == [MARKER]


# ---- through the engine, and the command


def pool(root: Path, what: str, port: int, **changed: Any) -> dict[str, Any]:
    web = {
        "kind": "process", "type": "web", "folder": str(root), "port_type": "port",
        "command": [sys.executable, "-c", SERVICE, what, "{port}"], **changed,
    }  # fmt: skip
    return {"blueprint": {"web": web, "ports": {"kind": "port-range", "ports": str(port)}}}


def test_a_service_stands_on_its_port_and_is_there_for_one_lease_after_another(
    engine: Engine, root: Path, port: int
) -> None:
    apply(engine, pool(root, "plain", port))
    one = engine.lease(Demand("web"), owner="t", wait_seconds=30)[0]
    [pid] = processes(root / "web-0")
    assert listens("127.0.0.1", port) == ""
    engine.release(one.id)
    two = engine.lease(Demand("web"), owner="t", wait_seconds=30)[0]
    assert two.resource == one.resource or (two.resource and one.resource and two.resource.id == one.resource.id)
    assert processes(root / "web-0") == [pid]
    assert two.resource is not None
    engine.release_resource(two.resource.id)
    assert not lives(pid)
    assert engine.store.leases.live() == []


def test_whoever_holds_a_service_that_has_died_loses_it_and_the_next_has_a_new_one(
    engine: Engine, clock: Clock, root: Path, place: Place, port: int
) -> None:
    apply(engine, pool(root, "plain", port, observe_every="10s"))
    held = engine.lease(Demand("web"), owner="t", wait_seconds=30)[0]
    os.kill(processes(root / "web-0")[0], signal.SIGKILL)
    wait_until_gone(place)
    clock.forward(11)
    engine.tend()
    with pytest.raises(LeaseLost, match="it was ended by signal 9"):
        engine.verify(held.id)
    again = engine.lease(Demand("web"), owner="t", wait_seconds=30)[0]
    assert listens("127.0.0.1", port) == ""
    assert again.resource is not None
    engine.release_resource(again.resource.id)
    assert [entry.name for entry in root.iterdir()] == [MARKER]


def test_a_service_that_does_not_start_fails_the_request_and_leaves_nothing(
    engine: Engine, root: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drydock.request.FIRST_PAUSE_SECONDS", 0.0)
    apply(engine, pool(root, "ends", port))
    with pytest.raises(BlueprintError, match="ended with exit status 3; it said last: no more oil"):
        engine.lease(Demand("web"), owner="t", wait_seconds=30)
    engine.tend()
    assert [entry.name for entry in root.iterdir()] == [MARKER]
    assert engine.store.leases.live() == []


def test_a_service_outlives_the_command_that_started_it_and_goes_when_it_is_told(
    cli: Cli, root: Path, port: int, tmp_path: Path
) -> None:
    """The hook's own process has ended by then, and so have all that ran it."""
    file = tmp_path / "pool.toml"
    file.write_text(toml(pool(root, "plain", port)))
    assert cli("apply", str(file)).returncode == 0
    held = cli("lease", "--type", "web", "--wait", "60s", "--json")
    assert held.returncode == 0, held.stderr
    [pid] = processes(root / "web-0")
    assert listens("127.0.0.1", port) == ""
    done = cli("release-resource", str(held.objects[0]["resource"]["id"]))
    assert done.returncode == 0, done.stderr
    assert not lives(pid)
    assert [entry.name for entry in root.iterdir()] == [MARKER]


def test_a_command_that_was_killed_while_it_started_one_leaves_nothing(
    cli: Cli, root: Path, port: int, tmp_path: Path
) -> None:
    """Killed when the service runs and is not ready; the next command ends that one and starts another."""
    gate = tmp_path / "gate"
    file = tmp_path / "pool.toml"
    file.write_text(toml(pool(root, "plain", port, ready={"command": ["test", "-e", str(gate)]}, limit=1)))
    assert cli("apply", str(file)).returncode == 0
    command = cli.start("lease", "--type", "web", "--ttl", "1h")
    wait_for(root / "web-0" / "pids")
    [first] = processes(root / "web-0")
    command.kill()
    command.communicate()
    gate.touch()
    held = cli("lease", "--type", "web", "--wait", "60s", "--json")
    assert held.returncode == 0, held.stderr
    assert not lives(first)
    wait_for(root / "web-0" / "pids")
    [second] = processes(root / "web-0")
    assert cli("release-resource", str(held.objects[0]["resource"]["id"])).returncode == 0
    assert not lives(second)
    assert cli("leases", "--json").objects == []


def toml(pool: dict[str, Any]) -> str:
    """Those few kinds of values, as TOML writes them."""

    def value(given: Any) -> str:
        if isinstance(given, dict):
            return "{" + ", ".join(f"{name} = {value(one)}" for name, one in given.items()) + "}"
        if isinstance(given, list):
            return "[" + ", ".join(map(value, given)) + "]"
        if isinstance(given, str):
            return '"' + given.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        return str(given).lower()

    tables = [f"[blueprint.{name}]\n" + "".join(f"{key} = {value(one)}\n" for key, one in table.items())
              for name, table in pool["blueprint"].items()]  # fmt: skip
    return "\n".join(tables)


# ---- what a pool file may say


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"command": []}, "command must be a list of strings"),
        ({"command": ["a", 1]}, "command must be a list of strings"),
        ({"command": [""]}, "command must begin with a program"),
        ({"folder": "services"}, "absolute path"),
        ({"folder": "/nowhere/at/all"}, "no folder"),
        ({"ready": {"port": False}}, "port must be true"),
        ({"ready": {"port": 80}}, "port must be true"),
        ({"ready": {"ping": True}}, '"ready" must be'),
        ({"ready": {"port": True, "http": "/"}}, '"ready" must be'),
        ({"ready": {"http": "health"}}, "http must be a path"),
        ({"ready": {"http": "/a\r\nHost: x"}}, "http must be a path"),
        ({"ready": {"command": "true"}}, '"ready": command must be a list'),
        ({"ready_within": "soon"}, "ready_within: not a duration"),
        ({"stop_within": "2d"}, "stop_within must be 0s to 4m"),
        ({"stop_signal": "TERMINATE"}, '"stop_signal" must be a signal'),
        ({"port_type": "../x"}, "port_type"),
        ({"port_type": "", "command": ["x", "{port}"]}, 'needs the setting "port_type"'),
        ({"port_type": "", "command": ["x"], "ready": {"http": "/"}}, 'needs the setting "port_type"'),
        ({"environment": {"A B": "x"}}, "must be a name"),
        ({"environment": {"A": 1}}, "must be a name"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Made, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make(**settings)


@pytest.mark.parametrize("name", ["..", "../x", "", "/etc", "a/b", ".web-0", "-rf", "a\0b"])
@pytest.mark.parametrize("hook", ["activate", "destroy", "observe", "interface"])
def test_a_poisoned_name_touches_nothing(make: Made, service: ResourceInfo, root: Path, hook: str, name: str) -> None:
    (root.parent / "precious").touch()
    with pytest.raises(ConfigError, match="name"):
        getattr(make(), hook)(service._replace(name=name))
    assert (root.parent / "precious").exists()
    assert [entry.name for entry in root.iterdir()] == [MARKER]


@pytest.mark.parametrize("of", ["folder", "control"])
@pytest.mark.parametrize("hook", ["activate", "destroy"])
def test_a_link_in_place_of_a_folder_of_ours_is_not_followed(
    make: Made, service: ResourceInfo, place: Place, tmp_path: Path, hook: str, of: str
) -> None:
    """PLUGIN-074: one to the service's own is removed, one to its keeper's is refused, since a keeper may be behind it."""
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("ended", "orders", "lock", "log"):
        (victim / name).write_text("precious")
    getattr(place, of).symlink_to(victim)
    kind = make()
    with pytest.raises(Refused, match="symbolic link") if of == "control" else contextlib.nullcontext():
        getattr(kind, hook)(service)
    assert place.folder.is_symlink() is False
    if of == "control":
        place.control.unlink()
    kind.destroy(service)
    assert {file.name: file.read_text() for file in victim.iterdir()} == dict.fromkeys(
        ("ended", "orders", "lock", "log"), "precious"
    )


def test_a_root_that_is_not_ours_is_left_alone(make: Made, service: ResourceInfo, root: Path) -> None:
    kind = make()
    (root / MARKER).unlink()
    for hook in (kind.activate, kind.destroy):
        with pytest.raises(Refused, match=MARKER):
            hook(service)
    (root / MARKER).touch()
