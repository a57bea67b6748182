"""`drydock command`, and the same from Python: on what an active lease holds and nothing else, until it is lost."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.terminal import Terminal
from conftest import Cli, apply, until

import drydock
from drydock.api import Connection, Lease
from drydock.engine import Engine
from drydock.errors import CommandFailed, ConfigError, LeaseLost, Unreachable
from drydock.interfaces import Local, Ssh
from drydock.testing.sshd import Sshd

#: what kinds have in common that are odd in one way
KIND = """
from drydock.blueprint import Binding, Local, Pool, Setting, slot_lock

class Odd(Pool):
    type = "thing"
    settings_schema = {"answer": Setting(str, "where it says that it is", "")}

    def bindings(self):
        yield Binding("t1", slot_lock("odd", self.name))
"""
KINDS = {
    "mute": "",
    "folder": """
    def interface(self, resource):
        return Local(self.settings["answer"])
""",
    "breaks": """
    def activate_lease(self, resource, lease):
        raise OSError("it does not work")

    def destroy_lease(self, resource, lease):
        raise OSError("nor does this")
""",
}
#: is there for good, which others can see
STAY = """
import fcntl, pathlib, sys, time
lock = open(f"{sys.argv[1]}/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(1000)
"""
TELL_WORDS = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"


def python(code: str, *arguments: str) -> list[str]:
    return ["--", sys.executable, "-c", code, *arguments]


def came(folder: Path) -> bool:
    return (folder / "ready").exists()


def is_gone(folder: Path) -> bool:
    """Whether `STAY` has ended."""
    with (folder / "lock").open("a") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def pool(**settings: Any) -> dict[str, Any]:
    return {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"], **settings}}}


def pool_over(sshd: Sshd) -> dict[str, Any]:
    return pool(hosts=[{"name": "h1", "address": sshd.address, "port": sshd.port}], ssh=sshd.settings)


HERE = pool(local=True)


@pytest.fixture
def dock(store_address: str) -> Iterator[Connection]:
    with drydock.connect(store_address) as dock:
        yield dock


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    for name, code in KINDS.items():
        (folder / f"{name}.py").write_text(KIND + code)
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", str(folder))


@pytest.fixture(params=["local", "ssh"])
def held(request: pytest.FixtureRequest, dock: Connection) -> Lease:
    """A lease on a host: this machine, and one that is reached over ssh."""
    dock.apply(HERE if request.param == "local" else pool_over(request.getfixturevalue("sshd")))
    return dock.lease("host", wait=0, detach=True)


def run_bytes(cli: Cli, *arguments: str | bytes, input: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*cli.command("command"), *arguments], input=input, capture_output=True, env=cli.environment, timeout=60
    )


def events(dock: Connection, lease: int = 1) -> list[tuple[str, dict[str, Any]]]:
    found = dock._engine.store.events.of_lease(lease, 50)
    return [(event.event, dict(event.data)) for event in found if event.event.startswith("command.")]


# ---- what passes through


@pytest.mark.usefixtures("path")
def test_words_input_and_both_outputs_pass_as_they_are(held: Lease, cli: Cli) -> None:
    words = [b"", b"a b", b"'", b'"', b"$(id)", b"new\nline\n", b"\xff\xfe", b"%s", b"--json", b"--help", b"-l"]
    code = TELL_WORDS + "; sys.stdout.flush(); shutil.copyfileobj(sys.stdin.buffer, sys.stderr.buffer)"
    done = run_bytes(cli, "--lease", str(held.id), *python(f"import shutil; {code}"), *words, input=b"\0%s%%\xff\r\n")
    assert done.stdout.split(b"\0") == words
    assert done.stderr == b"\0%s%%\xff\r\n"
    assert done.returncode == 0


@pytest.mark.usefixtures("path")
def test_ten_megabytes_pass_as_they_are(held: Lease, cli: Cli) -> None:
    data = bytes(range(256)) * 40_000 + b"%d%%~."
    done = run_bytes(cli, "--lease", str(held.id), "--", "cat", input=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("code", [1, 2, 7, 124, 137, 255])
def test_the_exit_code_is_passed_on(held: Lease, cli: Cli, code: int) -> None:
    done = cli("command", "--lease", str(held.id), "--", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.usefixtures("path")
def test_a_command_that_is_not_there_and_one_that_is_none(held: Lease, cli: Cli) -> None:
    assert cli("command", "--lease", str(held.id), "--", "no-such-command").returncode == 127
    assert cli("command", "--lease", str(held.id), "--", "/etc/passwd").returncode == 126


def test_what_ran_is_in_the_history_and_not_what_it_was_told(dock: Connection, held: Lease, cli: Cli) -> None:
    cli("command", "--lease", str(held.id), "--", "sh", "-c", "exit 3", "password")
    cli("command", "--lease", str(held.id), "--", "no-such-command", "password")
    assert events(dock) == [
        ("command.started", {}), ("command.ended", {"code": 3}), ("command.started", {}), ("command.ended", {"code": 127}),
    ]  # fmt: skip
    assert "password" not in cli("log", "--json").stdout
    assert "no-such-command" not in cli("log", "--json").stdout


@pytest.mark.usefixtures("path")
def test_json_is_on_stderr_since_stdout_is_the_commands(held: Lease, cli: Cli) -> None:
    done = cli("command", "--lease", str(held.id), "--json", "--", "echo", "out")
    assert done.stdout == "out\n"
    assert f'"id": {held.id}' in done.stderr


def test_a_command_that_runs_here_knows_what_it_holds(dock: Connection, cli: Cli) -> None:
    dock.apply(HERE)
    dock.lease("host", wait=0, detach=True)
    code = "import os; print(os.environ['DRYDOCK_NAME'], os.environ['DRYDOCK_FENCE'], os.environ['DRYDOCK_LEASE'])"
    assert cli("command", "--lease", "1", *python(code)).stdout == "h1 1 1\n"


@pytest.mark.usefixtures("path")
def test_it_runs_in_the_folder_of_the_thing_wherever_the_store_is_named_from(
    kinds: None, dock: Connection, cli: Cli, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "in here").mkdir()
    dock.apply({"blueprint": {"odd": {"kind": "folder", "answer": str(tmp_path / "in here")}}})
    dock.lease("thing", wait=0, detach=True)
    done = subprocess.run(
        cli.command("--store", path.name, "command", "--lease", "1", "--", "/bin/pwd"), cwd=path.parent,
        env={**cli.environment, "DRYDOCK_STORE": "/nowhere"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, os.path.realpath(tmp_path / "in here") + "\n"), done.stderr
    assert [name for name, _ in events(dock)] == ["command.started", "command.ended"]
    (tmp_path / "in here").rmdir()
    done = cli("command", "--lease", "1", "--", "/bin/pwd")
    assert done.returncode in (126, 127)
    assert "in here" in done.stderr


@pytest.mark.usefixtures("path")
def test_a_terminal_is_handed_on_to_a_command_that_runs_here(dock: Connection, cli: Cli) -> None:
    dock.apply(HERE)
    dock.lease("host", wait=0, detach=True)
    code = "import os; print([os.isatty(fd) for fd in (0, 1, 2)])"
    assert "[True, True, True]" in Terminal(cli, "command", "--lease", "1", *python(code)).finish().text


# ---- what is refused


def test_only_an_active_lease_is_worked_on(kinds: None, dock: Connection, cli: Cli, tmp_path: Path) -> None:
    """Of one that never was: 5; waiting, given back, broken, or with another fence: 4."""
    dock.apply(
        {
            "blueprint": {
                "lab": {"kind": "host-pool", "hosts": ["h1"], "local": True},
                "odd": {"kind": "breaks"},
            }
        }
    )

    def code(lease: int, *options: str) -> int:
        done = cli("command", "--lease", str(lease), *options, "--", "touch", str(tmp_path / "boo"))
        assert not (tmp_path / "boo").exists()
        assert len(done.stderr.splitlines()) == 1
        return done.returncode

    assert code(1) == 5
    held = dock.lease("host", wait=0, detach=True)
    assert code(held.id, "--fence", "2") == 4
    waiting = cli.start("lease", "-t", "host")
    assert waiting.stderr is not None
    assert "waiting" in waiting.stderr.readline()
    assert dock.leases()[1].status == "pending"
    assert code(dock.leases()[1].id) == 4
    held.release()
    assert waiting.wait(60) == 0
    waiting.communicate()
    assert code(held.id) == 4
    with pytest.raises(drydock.errors.BlueprintError):
        dock.lease("thing", wait=0)
    [broken] = [lease for lease in dock.leases() if lease.type == "thing"]
    assert broken.status == "broken"
    assert code(broken.id) == 4
    assert events(dock, broken.id) == events(dock, held.id) == []


@pytest.mark.usefixtures("path")
def test_a_kind_that_knows_no_way_and_one_that_lies(kinds: None, dock: Connection, cli: Cli) -> None:
    """To ask for what is not there is bad usage, since asking again will never help (2); a lie is the kind's fault (6)."""
    dock.apply({"blueprint": {"odd": {"kind": "mute"}}})
    dock.lease("thing", wait=0, detach=True)
    done = cli("command", "--lease", "1", "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert '"odd" has no way to run a command on "t1"' in done.stderr
    dock.apply({"blueprint": {"lies": {"kind": "folder", "answer": "over there"}}})
    dock.lease("thing", blueprint="lies", wait=0, detach=True)
    done = cli("command", "--lease", "2", "--", "true")
    assert done.returncode == 6
    assert '"lies" failed in interface: ConfigError: the folder must be an absolute path' in done.stderr


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--lease", "1"], "missing COMMAND; write it after --"),
        (["--lease", "1", "--"], "missing COMMAND"),
        (["--", "true"], "missing option '--lease'"),
        (["--lease", "x", "--", "true"], 'not a lease id: "x"'),
        (["--lease", "1", "--", "-oProxyCommand=touch"], "not a command"),
    ],
)
def test_what_cannot_be_meant_is_bad_usage(dock: Connection, cli: Cli, words: list[str], sentence: str) -> None:
    dock.apply(HERE)
    dock.lease("host", wait=0, detach=True)
    done = cli("command", *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert events(dock) == []


@pytest.mark.usefixtures("path")
def test_when_ssh_itself_fails_one_sentence_says_so_with_a_code_of_its_own(
    dock: Connection, cli: Cli, sshd: Sshd, tmp_path: Path
) -> None:
    nobody = tmp_path / "known_hosts"
    nobody.touch()
    dock.apply(pool(hosts=[{"name": "h1", "address": sshd.address, "port": sshd.port}],
                    ssh={**sshd.settings, "known_hosts": str(nobody)}))  # fmt: skip
    dock.lease("host", wait=0, detach=True)
    done = cli("command", "--lease", "1", "--", "touch", str(tmp_path / "boo"))
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith('drydock: cannot reach "127.0.0.1": ')
    assert done.stderr.endswith("Host key verification failed.\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "boo").exists()
    assert events(dock) == [("command.started", {}), ("command.ended", {"code": None})]


@pytest.mark.usefixtures("path")
def test_nobody_is_asked_for_a_passphrase_on_the_terminal_either(
    dock: Connection, cli: Cli, sshd: Sshd, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    shutil.copy(sshd.identity_file, key)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", key], check=True, capture_output=True
    )
    dock.apply(pool(hosts=[{"name": "h1", "address": sshd.address, "port": sshd.port}],
                    ssh={**sshd.settings, "identity_file": str(key)}))  # fmt: skip
    dock.lease("host", wait=0, detach=True)
    seen = Terminal(cli, "command", "--lease", "1", "--", "true", columns=400, SSH_ASKPASS="").finish()
    assert seen.code == 7
    assert "passphrase" not in seen.text
    assert "Permission denied" in seen.text


# ---- what ends it


def test_when_the_lease_is_given_back_the_command_is_stopped(
    dock: Connection, held: Lease, cli: Cli, tmp_path: Path
) -> None:
    command = cli.start("command", "--lease", str(held.id), *python(STAY, str(tmp_path)))
    until(lambda: came(tmp_path))
    held.release()
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (124, "")
    assert "is lost" in err
    until(lambda: is_gone(tmp_path))
    assert events(dock) == [("command.started", {}), ("command.ended", {"code": 124})]


@pytest.mark.usefixtures("path")
def test_when_the_time_of_the_lease_is_up_the_command_is_stopped(dock: Connection, cli: Cli, tmp_path: Path) -> None:
    dock.apply(HERE)
    dock.lease("host", wait=0, ttl=3, detach=True)
    done = cli("command", "--lease", "1", *python(STAY, str(tmp_path)))
    assert (done.returncode, done.stdout) == (124, "")
    assert "the time of the lease is up" in done.stderr, "before it is lost, and not when somebody else may have it"
    assert is_gone(tmp_path)


@pytest.mark.usefixtures("path")
def test_when_drydock_is_killed_the_command_is_stopped(held: Lease, cli: Cli, tmp_path: Path) -> None:
    with cli.start("command", "--lease", str(held.id), *python(STAY, str(tmp_path))) as command:
        until(lambda: came(tmp_path))
        command.kill()
        command.communicate()
    until(lambda: is_gone(tmp_path))


@pytest.mark.usefixtures("path")
def test_a_signal_ends_the_command(request: pytest.FixtureRequest, held: Lease, cli: Cli, tmp_path: Path) -> None:
    """Here it is the command's; over ssh it is ssh that hears it, and ends with 255."""
    with cli.start("command", "--lease", str(held.id), *python(STAY, str(tmp_path))) as command:
        until(lambda: came(tmp_path))
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=60)
    over_ssh = "ssh" in request.node.name
    assert command.returncode == (255 if over_ssh else 128 + signal.SIGTERM)
    until(lambda: is_gone(tmp_path))
    assert held.status == "active"


# ---- what a pool of hosts says


def interface(dock: Connection) -> Any:
    lease = dock.lease("host", wait=0)
    try:
        return dock._engine.interface(lease._row)
    finally:
        lease.release()


@pytest.mark.usefixtures("path")
def test_a_host_is_reached_at_its_address_and_else_by_its_name(dock: Connection) -> None:
    dock.apply(pool())
    assert interface(dock) == Ssh("h1")
    dock.apply(pool(hosts=[{"name": "h1", "address": "10.0.0.1", "port": 2222}]))
    assert interface(dock) == Ssh("10.0.0.1", 2222)
    dock.apply(pool(hosts=["h1"], ssh={"user": "ci", "identity_file": "/k", "known_hosts": "/h"}))
    assert interface(dock) == Ssh("h1", user="ci", identity_file="/k", known_hosts="/h")
    dock.apply(HERE)
    assert interface(dock) == Local()


@pytest.mark.usefixtures("path")
def test_a_device_of_the_almanac_is_reached_as_a_host_is(dock: Connection) -> None:
    dock.apply(
        {
            "blueprint": {"build": {"kind": "almanac-hosts", "services": ["s"], "ssh": {"user": "ci"}}},
            "almanac": {"device": {"d1": {"address": "10.0.0.1", "port": 2222}}, "service": {"s": {"devices": ["d1"]}}},
        }
    )
    assert interface(dock) == Ssh("10.0.0.1", 2222, user="ci")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ssh": {"usr": "ci"}}, 'ssh: unknown key "usr"'),
        ({"ssh": {"user": "-oProxyCommand=touch boo"}}, "ssh: not the name of a user"),
        ({"ssh": {"user": 7}}, "ssh: not the name of a user"),
        ({"ssh": {"identity_file": "key"}}, "ssh: identity_file must be an absolute path"),
        ({"ssh": {"known_hosts": "/a\nProxyCommand touch boo"}}, "ssh: known_hosts must be an absolute path"),
        ({"ssh": "ci"}, '"ssh" must be of type dict'),
        ({"local": "yes"}, '"local" must be'),
        ({"local": True, "ssh": {"user": "ci"}}, '"ssh" and "local" exclude one another'),
    ],
)
def test_a_way_that_cannot_be_meant_is_refused(engine: Engine, settings: dict[str, Any], sentence: str) -> None:
    almanac = {"device": {"d1": {}}, "service": {"s": {"devices": ["d1"]}}}
    kinds = {"kind": "almanac-hosts", "services": ["s"], **settings}
    for given in (pool(**settings), {"blueprint": {"lab": kinds}, "almanac": almanac}):
        with pytest.raises(ConfigError, match=sentence):
            apply(engine, given)
    assert engine.store.offers.blueprints() == []


@pytest.mark.usefixtures("path")
def test_an_address_that_looks_like_an_option_is_none(dock: Connection, cli: Cli, tmp_path: Path) -> None:
    """It can only come in by the door of attributes, which are data and nothing else."""
    boo = tmp_path / "boo"
    dock.apply(pool(hosts=[{"name": "h1", "attributes": {"address": f"-oProxyCommand=touch {boo}"}}]))
    dock.lease("host", wait=0, detach=True)
    done = cli("command", "--lease", "1", "--", "true")
    assert done.returncode == 2
    assert 'blueprint "lab": not the address of a host: "-oProxyCommand=' in done.stderr
    assert not boo.exists()


# ---- from Python


def test_a_command_from_python(dock: Connection, held: Lease) -> None:
    done = held.command(["sh", "-c", "cat; echo err >&2; exit 4"], input=b"%\0", capture_output=True)
    assert done == (4, b"%\0", b"err\n")
    with pytest.raises(CommandFailed, match=r"exit code 4") as told:
        held.command(["sh", "-c", "exit 4"], check=True)
    assert told.value.code == 4
    with pytest.raises(CommandFailed, match="took longer"):
        held.command(["sleep", "1000"], seconds=0.1)
    assert [data for name, data in events(dock) if name == "command.ended"] == [
        {"code": 4},
        {"code": 4},
        {"code": None},
    ]


@pytest.mark.usefixtures("path")
def test_files_from_python(held: Lease, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"%\0\xff")
    held.put(tmp_path / "source", tmp_path / "there $(id)")
    held.get(tmp_path / "there $(id)", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"%\0\xff"


def test_from_python_only_what_is_held_is_worked_on(dock: Connection, held: Lease, tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    held.release()
    boo = tmp_path / "boo"
    for use in (
        lambda: held.command(["touch", str(boo)]),
        lambda: held.put(tmp_path / "source", boo),
        lambda: held.get(tmp_path / "source", boo),
    ):
        with pytest.raises(LeaseLost):
            use()
    assert not boo.exists()


def test_a_command_from_python_ends_when_its_lease_is_lost(held: Lease, cli: Cli, tmp_path: Path) -> None:
    """The command itself gives the lease back, as somebody else might."""
    release = f"import subprocess; subprocess.run({cli.command('release', str(held.id))!r}, check=True)\n"
    store = cli.environment["DRYDOCK_STORE"]
    code = f"import os; os.environ['DRYDOCK_STORE'] = {store!r}\n{release}{STAY}"
    with pytest.raises(LeaseLost):
        held.command([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.DEVNULL, seconds=60)
    until(lambda: is_gone(tmp_path))


def test_while_a_command_from_python_runs_its_lease_is_renewed(dock: Connection, cli: Cli) -> None:
    """The command waits until it sees that."""
    dock.apply(HERE)
    with dock.lease("host", wait=0, ttl=6) as lease:
        code = f"""
import json, subprocess, time
def end():
    return json.loads(subprocess.run({cli.command("leases", "--json")!r}, capture_output=True, check=True).stdout)["ends_at"]
first = end()
while end() == first:
    time.sleep(0.05)
"""
        store = cli.environment["DRYDOCK_STORE"]
        assert lease.command(["env", f"DRYDOCK_STORE={store}", sys.executable, "-c", code], seconds=60).code == 0


@pytest.mark.usefixtures("path")
def test_from_python_a_host_that_cannot_be_reached_is_told_from_a_command_that_failed(dock: Connection) -> None:
    dock.apply(pool(hosts=[{"name": "h1", "address": "127.0.0.1", "port": 1}]))
    with dock.lease("host", wait=0) as lease, pytest.raises(Unreachable, match="Connection refused"):
        lease.command(["true"])
