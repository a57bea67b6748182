"""Real processes, a real server and a wire that can be cut: whoever dies or is cut off loses its lease, and nobody else."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest
from conftest import LAB
from wire import Wire

import drydock
from drydock.engine import Engine
from drydock.errors import StoreBusy
from drydock.model import Demand, Lease, LeaseStatus
from drydock.store import open_store, postgres, postgres_session
from drydock.store.postgres import PostgresStore
from drydock.testing import stubborn
from drydock.testing.children import Child
from drydock.testing.postgres import PostgresServer

FOREVER, SHORT = 3600.0, 3.0
PATIENCE_SECONDS = 90.0

#: drydock, whose processes are believed to live for so long after they were last heard of
COMMAND = """
import sys
from drydock.store import postgres
postgres.LIFE_SECONDS = float(sys.argv.pop(1))
from drydock.cli import main
main()
"""


def until(true: Callable[[], bool]) -> None:
    """Look again and again until it is so."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < patience, "it never became so"
        time.sleep(0.005)


class Started:
    """drydock in a process of its own, on a machine that only its state folder tells from others."""

    def __init__(self, url: str, machine: Path, life: float, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(life), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "DRYDOCK_STORE": url, "XDG_STATE_HOME": str(machine)},
        )  # fmt: skip
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Let its command read a line, and wait: the exit code, and what it says on stderr."""
        _, told = self.process.communicate("\n", timeout=PATIENCE_SECONDS)
        return self.process.returncode, told

    def guard(self) -> int:
        return stubborn.guard_of(self.pid)


class Stubborn(Started):
    """`drydock run` of a command that only SIGKILL ends; `file` is where that writes."""

    def __init__(self, url: str, machine: Path, life: float, *options: str) -> None:
        machine.mkdir(exist_ok=True)
        self.file = machine / "moments"
        command = [sys.executable, "-c", stubborn.CODE, str(self.file)]
        super().__init__(url, machine, life, "run", "-t", "host", *options, "--", *command)
        until(self.file.exists)

    def moments(self, word: str) -> list[float]:
        return stubborn.moments(self.file, word)


class Waiter(Started):
    """`drydock run` that waits for the host; `observer` is who sees it wait."""

    def __init__(self, url: str, machine: Path, life: float, observer: Engine) -> None:
        super().__init__(url, machine, life, "run", "-t", "host", "--wait", "80s", "--", "true")
        self.leases = observer.store.leases
        until(lambda: any(lease.status is LeaseStatus.PENDING for lease in self.leases.live()))
        self.lease = self.leases.live()[-1].id

    def granted_at(self) -> float:
        """The server's clock, which is this machine's, when it was granted."""
        code, told = self.end()
        assert code == 0, told
        lease = self.leases.get(self.lease)
        assert lease is not None
        assert lease.granted_at is not None
        return lease.granted_at


@pytest.fixture
def postgres_store(new_postgres_store: Callable[[], str]) -> str:
    return new_postgres_store()


@pytest.fixture
def observer(postgres_store: str) -> Engine:
    """Somebody who looks on, with one host for all."""
    engine = Engine(open_store(postgres_store))
    with drydock.connect(postgres_store) as dock:
        dock.apply(LAB)
    return engine


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Path, Path]:
    """The state folders of two machines."""
    return tmp_path / "here", tmp_path / "elsewhere"


@pytest.fixture
def wire(postgres_store: str) -> Iterator[Wire]:
    with Wire(postgres_store) as wire:
        yield wire


@pytest.fixture
def engine(observer: Engine, wire: Wire) -> Iterator[Engine]:
    """One behind the wire."""
    engine = Engine(open_store(wire.url))
    yield engine
    with observer.store.write():
        observer.store.run("DELETE FROM lease")
    engine.store.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that may be stopped, and writes down nothing that was not asked to last."""
    with PostgresServer(durable=False, settings={"wal_writer_delay": "10s", "autovacuum": "off"}) as server:
        yield server


@pytest.fixture
def own_url(own_server: PostgresServer) -> str:
    url = own_server.new_database()
    with drydock.connect(url) as dock:
        dock.apply(LAB)
    return url


def live(url: str) -> list[Lease]:
    store = open_store(url)
    try:
        return store.leases.live()
    finally:
        store.close()


# ---- cut off


@pytest.mark.parametrize("options", [(), ("--ttl", "3s")], ids=["bound", "ttl"])
def test_a_command_behind_a_dead_wire_is_stopped_before_another_is_granted_and_run_learns_of_it(
    observer: Engine, postgres_store: str, wire: Wire, machines: tuple[Path, Path], options: tuple[str, ...]
) -> None:
    """It is asked to end before it is killed, also while run waits for an answer that never comes."""
    here, elsewhere = machines
    life = FOREVER if options else SHORT
    with Stubborn(wire.url, here, life, *options) as cut, Waiter(postgres_store, elsewhere, life, observer) as next:
        wire.stall()
        granted_at = next.granted_at()
        assert cut.moments("lives")[-1] < granted_at
        assert cut.moments("asked")[0] < cut.moments("lives")[-1]
        wire.go_on()
        code, told = cut.end()
        assert code == 124
        assert "the command is stopped" in told
    lost = cut_lease(observer)
    for verb in ("verify", "renew", "release"):
        with Started(postgres_store, here, SHORT, verb, str(lost.id), "--fence", str(lost.fence)) as late:
            assert late.end()[0] == 4


def cut_lease(observer: Engine) -> Lease:
    lease = observer.store.leases.get(1)
    assert lease is not None
    return lease


# ---- death


def test_when_run_is_killed_its_guard_tells_others_elsewhere(
    observer: Engine, postgres_store: str, machines: tuple[Path, Path]
) -> None:
    here, elsewhere = machines
    with (
        Stubborn(postgres_store, here, FOREVER) as killed,
        Waiter(postgres_store, elsewhere, FOREVER, observer) as next,
    ):
        killed.process.kill()
        assert killed.moments("lives")[-1] < next.granted_at()


def test_when_run_and_its_guard_are_killed_a_waiter_of_the_same_machine_sees_it(
    observer: Engine, postgres_store: str, machines: tuple[Path, Path]
) -> None:
    here, _ = machines
    with Stubborn(postgres_store, here, FOREVER) as killed, Waiter(postgres_store, here, FOREVER, observer) as next:
        os.kill(killed.guard(), signal.SIGKILL)
        killed.process.kill()
        assert killed.moments("lives")[-1] < next.granted_at()


def test_when_run_and_its_guard_are_killed_others_elsewhere_wait_until_its_life_is_over(
    observer: Engine, postgres_store: str, machines: tuple[Path, Path]
) -> None:
    here, elsewhere = machines
    with Stubborn(postgres_store, here, SHORT) as killed, Waiter(postgres_store, elsewhere, SHORT, observer) as next:
        process = observer.store.leases.process_of(1)
        os.kill(killed.guard(), signal.SIGKILL)
        killed.process.kill()
        killed.process.wait()
        granted_at = next.granted_at()
    [(beat,)] = observer.store.rows("SELECT beat FROM process WHERE name = :name", name=process)
    assert granted_at >= beat + SHORT


def test_a_run_that_is_stopped_for_longer_than_its_life_has_lost_and_its_command_with_it(
    observer: Engine, postgres_store: str, machines: tuple[Path, Path]
) -> None:
    here, elsewhere = machines
    with Stubborn(postgres_store, here, SHORT) as stopped, Waiter(postgres_store, elsewhere, SHORT, observer) as next:
        os.kill(stopped.pid, signal.SIGSTOP)
        granted_at = next.granted_at()
        assert stopped.moments("lives")[-1] < granted_at
        assert stopped.moments("asked"), "the guard was polite in time"
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.end()[0] == 124


def test_a_run_that_was_stopped_too_long_says_so_also_if_nobody_wanted_what_it_held(
    observer: Engine, postgres_store: str, machines: tuple[Path, Path]
) -> None:
    with Stubborn(postgres_store, machines[0], SHORT) as stopped:
        guard = stopped.guard()
        os.kill(stopped.pid, signal.SIGSTOP)
        until(lambda: not Path(f"/proc/{guard}/cmdline").read_bytes())  # it has done its work
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.end()[0] == 124
    assert not observer.store.leases.live()


WRITE = """
import signal
from drydock.errors import StoreAway
from drydock.store import open_store

store = open_store(sys.argv[1])
try:
    with store.write():
        store.rows("SELECT 1")
        store.run("UPDATE blueprint SET enabled = 0")
        say("inside")
        os.kill(os.getpid(), signal.SIGSTOP)
except StoreAway as away:
    say(away)
"""


def test_who_is_stopped_inside_a_transaction_is_put_out_of_it_and_changes_nothing(
    observer: Engine, postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one process that stands still, or one dead wire, would keep everybody from writing."""
    monkeypatch.setattr(postgres, "IDLE_SECONDS", 0.3)
    monkeypatch.setitem(postgres_session._SETTINGS, "lock_timeout", "300ms")
    with Child(WRITE, postgres_store) as stopped:
        stopped.expect("inside")
        other = open_store(postgres_store)
        with other.write():
            other.events.add("test.inside")
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.hear().endswith("nothing was changed")
    assert observer.store.rows("SELECT enabled FROM blueprint") == [(1,)]


def test_who_is_slow_inside_a_transaction_is_left_alone(
    observer: Engine, postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_session._SETTINGS, "lock_timeout", "100ms")
    monkeypatch.setattr(postgres, "TURN_SECONDS", 0.3)
    other = open_store(postgres_store)
    with observer.store.write():
        observer.store.rows("SELECT 1")
        with pytest.raises(StoreBusy), other.write():
            other.rows("SELECT 1")
        observer.store.events.add("test.inside")
    assert observer.store.committed


# ---- the server is stopped without warning, and starts again


def test_a_crash_of_the_server_takes_nobodys_lease_and_the_command_goes_on(
    own_server: PostgresServer, own_url: str, machines: tuple[Path, Path]
) -> None:
    with Started(
        own_url, machines[0], 30.0, "run", "-t", "host", "--", "sh", "-c", "echo ready; read x; echo $x"
    ) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "ready\n"
        [before] = live(own_url)
        own_server.stop("immediate")
        assert run.process.stderr is not None
        assert "the command goes on" in run.process.stderr.readline()
        own_server.start()
        [after] = live(own_url)
        assert (after.id, after.status, after.fence) == (before.id, before.status, before.fence)
        assert run.end()[0] == 0
    assert live(own_url) == []


def test_who_waits_survives_a_crash_of_the_server_and_is_granted(
    own_server: PostgresServer, own_url: str, machines: tuple[Path, Path]
) -> None:
    with drydock.connect(own_url) as dock:
        held = dock.lease("host", wait=0, detach=True)
    observer = Engine(open_store(own_url))
    with Waiter(own_url, machines[0], 30.0, observer) as waiter:
        own_server.restart("immediate")
        with Started(own_url, machines[1], 30.0, "release", str(held.id)) as release:
            assert release.end()[0] == 0
        assert waiter.end()[0] == 0
    observer.store.close()


# ---- commits of which nobody knows what became of them


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_a_grant_whose_commit_is_not_answered_happens_once(
    engine: Engine, observer: Engine, wire: Wire, fate: str
) -> None:
    wire.at_commit = fate
    [lease] = engine.lease(Demand("host"), owner="me", wait_seconds=0)
    assert not wire.at_commit, "it did happen"
    assert [one.id for one in observer.store.leases.live()] == [lease.id]
    assert len([event for event in observer.store.events.latest(100) if event.event == "lease.activated"]) == 1


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_a_release_whose_commit_is_not_answered_happens_once(
    engine: Engine, observer: Engine, wire: Wire, fate: str
) -> None:
    [lease] = engine.lease(Demand("host"), owner="me", wait_seconds=0)
    wire.at_commit = fate
    assert engine.release(lease.id, fence=lease.fence), "with a fence it could not be done twice"
    assert not wire.at_commit
    assert observer.store.leases.live() == []


def test_a_commit_that_a_crash_has_swallowed_is_done_again_though_its_number_went_to_another(
    own_server: PostgresServer, own_url: str
) -> None:
    with Wire(own_url) as wire:
        wire.at_commit = "held"
        granted: list[Lease] = []
        engine = Engine(open_store(wire.url))
        asking = threading.Thread(
            target=lambda: granted.extend(engine.lease(Demand("host"), owner="me", wait_seconds=0))
        )
        asking.start()
        assert wire.held.wait(PATIENCE_SECONDS)
        assert isinstance(engine.store, PostgresStore)
        swallowed = int(engine.store._xid)
        own_server.stop("immediate")
        own_server.start()
        with psycopg.connect(own_url, autocommit=True) as other:
            number = 0
            while number < swallowed:
                [number] = other.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or [0]
            found = other.execute("SELECT pg_xact_status(%s::text::xid8)", [str(swallowed)]).fetchone()
            assert found == ("committed",), "that is what makes it hard"
        wire.cut()
        asking.join()
        [lease] = granted
        assert [(one.id, one.status) for one in live(own_url)] == [(lease.id, LeaseStatus.ACTIVE)]
        engine.store.patience_seconds = 0.0
        engine.release(lease.id)
        engine.store.close()


# ---- servers that are not to be used


class Standby(PostgresServer):
    """A server that can be started as one that waits for a primary."""

    def _is_ready(self) -> bool:
        return super()._is_ready() or ((self.data / "standby.signal").exists() and self._says("standby"))


def ends(url: str, machine: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    with Started(url, machine, 30.0, *(arguments or ("leases",))) as started:
        return started.end()


def test_a_standby_is_refused_whatever_the_url_says_of_it(machines: tuple[Path, Path]) -> None:
    with Standby(durable=False) as server:
        url = server.new_database()
        open_store(url).close()
        server.stop()
        (server.data / "standby.signal").touch(mode=0o644)
        server.start()
        for more, words in (("", "read-only"), ("&target_session_attrs=any", "is a standby")):
            code, told = ends(url + more, machines[0])
            assert (code, words in told, told.count("\n")) == (7, True, 1), told


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("default_transaction_read_only = on", 7, "read-only"),
        ("synchronous_commit = off", 9, "synchronous_commit = off, so that a grant could be forgotten"),
    ],
)
def test_a_database_that_would_not_keep_a_grant_is_refused(
    postgres_url: str, machines: tuple[Path, Path], setting: str, code: int, words: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
    got, told = ends(postgres_url, machines[0])
    assert (got, told.count("\n")) == (code, 1)
    assert words in told


# ---- what is told when the server cannot be used, and what never is

SECRET = "s3cret-word"


@pytest.fixture(scope="module")
def locked_server() -> Iterator[PostgresServer]:
    with PostgresServer(durable=False, password=SECRET) as server:
        yield server


def everything_about(url: str, machine: Path, *, debug: bool, code: str = COMMAND) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, "30", "leases"], capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        env={**os.environ, "DRYDOCK_STORE": url, "XDG_STATE_HOME": str(machine), "DRYDOCK_DEBUG": str(int(debug))},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("s3cret-word", "wrong-s3cret-word"), 9, "does not let this user in"),
        (("postgres:s3cret-word", "nobody:s3cret-word"), 9, "does not let this user in"),
        (("/postgres?", "/nowhere?"), 7, "does not exist"),
        (("host=", "host=/nowhere"), 7, "cannot be reached"),
        (("&port=", "&connect_timeout=soon&port="), 7, "cannot be"),
        (("&port=", "&colour=red&port="), 2, "cannot be meant"),
    ],
    ids=["password", "user", "database", "server", "value", "option"],
)
def test_one_sentence_tells_what_is_wrong_and_the_password_is_in_none(
    locked_server: PostgresServer,
    machines: tuple[Path, Path],
    change: tuple[str, str],
    code: int,
    words: str,
    debug: bool,
) -> None:
    url = locked_server.url()
    assert change[0] in url
    got, told = everything_about(url.replace(*change), machines[0], debug=debug)
    assert got == (1 if debug else code), told
    assert words in told
    assert "Traceback" in told if debug else told.count("\n") == 1
    assert SECRET not in told


def test_a_missing_driver_is_one_sentence_that_says_how_to_get_it(
    locked_server: PostgresServer, machines: tuple[Path, Path]
) -> None:
    code = "import sys; sys.argv.pop(1); sys.modules['psycopg'] = None\nfrom drydock.cli import main; main()"
    got, told = everything_about(locked_server.url(), machines[0], debug=False, code=code)
    assert (got, told.count("\n")) == (7, 1)
    assert 'pip install "drydock-allocator[postgres]"' in told


def test_nothing_that_run_starts_shows_the_password_to_ps(
    locked_server: PostgresServer, machines: tuple[Path, Path]
) -> None:
    url = locked_server.new_database()
    assert SECRET in url
    with drydock.connect(url) as dock:
        dock.apply(LAB)
    with Started(url, machines[0], 30.0, "run", "-t", "host", "--", "sh", "-c", "echo ready; read x") as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert len(children) == 2
        for pid in (str(run.pid), *children):
            assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert run.end()[0] == 0
