"""Suites of other people, run by pytest in processes of their own: what they hold, what they lose, what they leave."""

import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_docs import README, blocks

import drydock
from drydock.api import Connection

pytest_plugins = ["pytester"]

#: what else this environment has must not matter
OPTIONS = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"]
BEGIN = "import os, pytest, sys, drydock\nfrom pathlib import Path\nfrom drydock.pytest_plugin import lease\n"

Suite = Callable[..., pytest.RunResult]


def hosts(*names: str) -> dict[str, Any]:
    return {"blueprint": {"lab": {"kind": "host-pool", "hosts": list(names)}}}


@pytest.fixture
def store_address(path: Path) -> str:
    """SQLite: `postgres/test_suites.py` has what a server makes harder."""
    return str(path)


@pytest.fixture
def dock(store_address: str) -> Iterator[Connection]:
    with drydock.connect(store_address) as dock:
        dock.apply(hosts("h1", "h2"))
        yield dock


@pytest.fixture
def suite(dock: Connection, store_address: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Runs these tests beside this conftest.py; whatever becomes of them, they leave no lease."""
    monkeypatch.setenv("STORE", store_address)
    pytester.makeini("[pytest]\n")

    def run(tests: str, *options: str, conftest: str = "", kills: bool = False) -> pytest.RunResult:
        pytester.makeconftest(BEGIN + conftest)
        pytester.makepyfile(BEGIN + tests)
        ran = pytester.run(*OPTIONS, f"--drydock-store={store_address}", *options, timeout=100)
        if kills:  # what the dead held is given back by whoever comes by
            dock._engine.reap()
        assert [lease for lease in dock.leases() if lease.owner != "outside"] == []
        return ran

    return run


@pytest.fixture
def begin(dock: Connection, store_address: str, pytester: pytest.Pytester) -> Iterator[Callable[..., Any]]:
    """Begins a run of these tests, in a process group of its own, that tells at once why it waits."""
    begun = []

    def begin(tests: str, *options: str) -> "subprocess.Popen[str]":
        pytester.makeini("[pytest]\n")
        pytester.makeconftest(BEGIN + "drydock.pytest_plugin.SILENT_SECONDS = 0\n")
        pytester.makepyfile(BEGIN + tests)
        command = [*OPTIONS, f"--drydock-store={store_address}", *options]
        run = subprocess.Popen(
            command,
            cwd=pytester.path,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        begun.append(run)
        return run

    yield begin
    for run in begun:
        assert run.stdout is not None
        run.stdout.close()
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def line_with(text: str, run: "subprocess.Popen[str]") -> str:
    """The next line that has this in it."""
    assert run.stdout is not None
    patience = threading.Timer(60, os.killpg, (run.pid, signal.SIGKILL))
    patience.start()
    try:
        for line in run.stdout:
            if text in line:
                return line
    finally:
        patience.cancel()
    raise AssertionError(f"it never said: {text}")


def told(dock: Connection, name: str) -> list[Any]:
    """The events of this name."""
    return [event for event in dock._engine.store.events.latest(1000) if event.event == name]


# ---- holding


def test_a_fixture_holds_for_a_test_a_module_or_a_run(
    suite: Suite, dock: Connection, pytester: pytest.Pytester
) -> None:
    dock.apply(hosts("h1", "h2", "h3"))
    pytester.makepyfile(test_z="def test_elsewhere(run, module):\n    assert (run.id, module.id) == (1, 5)\n")
    ran = suite(
        """
def test_first(run, module, each):
    assert (run.id, module.id, each.id) == (1, 2, 3)
    assert len({one.resource.name for one in (run, module, each)}) == 3
    each.verify()

def test_second(run, module, each):
    assert (run.id, module.id, each.id) == (1, 2, 4)
""",
        conftest="""
run, module, each = lease("host", scope="session"), lease("host", scope="module"), lease("host")
""",
    )
    ran.assert_outcomes(passed=3)


def test_a_marker_holds_a_thing_for_each_test_also_for_one_that_does_not_look_at_it(suite: Suite) -> None:
    ran = suite(
        """
import unittest

def held():
    with drydock.connect(os.environ["STORE"]) as dock:
        return [one.id for one in dock.leases()]

@pytest.mark.drydock("host")
class TestBoth:
    def test_one(self, drydock_lease):
        assert held() == [drydock_lease.id] == [1]

    def test_two(self):
        assert held() == [2]

    @pytest.mark.drydock("host", count=2)
    def test_the_nearest_marker_counts(self, drydock_lease):
        assert held() == [one.id for one in drydock_lease] == [3, 4]

@pytest.mark.drydock("host")
class TestOld(unittest.TestCase):
    def test_as_well(self):
        self.assertEqual(held(), [5])

def test_none():
    assert held() == []
"""
    )
    ran.assert_outcomes(passed=5)


def test_what_a_marker_asks_for_is_held_after_what_others_use_too_and_before_the_tests_own(suite: Suite) -> None:
    """Who waits for what others use too while he holds what they wait for waits for ever."""
    ran = suite(
        """
def held():
    with drydock.connect(os.environ["STORE"]) as dock:
        return len(dock.leases())

@pytest.fixture(scope="module")
def shared():
    return held()

@pytest.fixture
def own():
    return held()

@pytest.mark.drydock("host")
def test_order(shared, own):
    assert (shared, own) == (0, 1)
"""
    )
    ran.assert_outcomes(passed=1)


def test_a_factory_gives_one_more_each_time_until_its_end(suite: Suite) -> None:
    ran = suite(
        """
@pytest.fixture(scope="module")
def first(drydock_module_lease_factory):
    return drydock_module_lease_factory("host")

def test_two(first, drydock_lease_factory):
    second = drydock_lease_factory("host", wait="0s")
    assert {first.resource.name, second.resource.name} == {"h1", "h2"}
    with pytest.raises(drydock.errors.NothingFree):
        drydock_lease_factory("host", wait=0)

def test_one(first, drydock_lease_factory, drydock_session_lease_factory):
    assert first.id == 1
    first.verify()
    drydock_session_lease_factory("host", wait=0)
"""
    )
    ran.assert_outcomes(passed=2)


def test_a_thing_may_be_given_back_before_its_test_ends(suite: Suite) -> None:
    suite("host = lease('host', ttl='1h')\ndef test_early(host):\n    host.release()\n").assert_outcomes(passed=1)


# ---- settings


def test_the_ini_file_names_a_store_and_a_pool_beside_it(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeini("[pytest]\ndrydock_store = here.db\ndrydock_pool = pool.toml\n")
    (pytester.path / "pool.toml").write_text('[blueprint.lab]\nkind = "host-pool"\nhosts = ["h1"]\n')
    pytester.makepyfile(
        BEGIN + "host = lease('host', wait=0)\ndef test_it(host):\n    assert host.resource.name == 'h1'\n"
    )
    below = pytester.mkdir("below")
    ran = subprocess.run([*OPTIONS, ".."], cwd=below, capture_output=True, text=True, check=False)
    assert "1 passed" in ran.stdout
    assert (pytester.path / "here.db").exists()
    subprocess.run([*OPTIONS, "..", "--drydock-store=there.db"], cwd=below, capture_output=True, check=True)
    assert (below / "there.db").exists()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--drydock-pool", "nowhere.toml", "ERROR: drydock: cannot read *nowhere.toml*"),
        ("--drydock-wait", "soon", 'ERROR: drydock: --drydock-wait*"soon"*'),
        ("--drydock-store", "mysql://x/y", "ERROR: drydock: *mysql*"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_sentence_and_no_test_runs(
    pytester: pytest.Pytester, path: Path, option: str, value: str, sentence: str
) -> None:
    (pytester.path / "pool.toml").touch()
    pytester.makepyfile("def test_it():\n    pass\n")
    ran = pytester.run(*OPTIONS, "--drydock-pool=pool.toml", f"--drydock-store={path}", f"{option}={value}")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines([sentence])
    assert "Traceback" not in ran.stderr.str() + ran.stdout.str()


def test_who_waits_for_longer_than_is_said_fails_and_reads_why(suite: Suite, dock: Connection) -> None:
    dock.lease("host", count=2, owner="outside")
    ran = suite("host = lease('host')\ndef test_it(host):\n    pass\n", "--drydock-wait", "0.01s")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(['drydock: no free "host": 2 in use (lease * of "outside", *'])
    assert "pytest_plugin.py" not in ran.stdout.str()


#: what Python says more of a keyword that it does not know
GUESS = ". Did you mean 'ttl'?" if sys.version_info >= (3, 13) else ""


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("@pytest.mark.drydock('hst')", 'drydock: no blueprint makes "hst"; known types: "host"'),
        (
            "@pytest.mark.drydock('host', tll=3)",
            "@pytest.mark.drydock: got an unexpected keyword argument 'tll'" + GUESS,
        ),
        ("", "drydock_lease needs a marker that says of what, such as *"),
        ("@pytest.mark.drydock('host', ttl='often')", 'drydock: ttl*"often"*'),
    ],
)
def test_a_marker_that_cannot_be_meant_fails_its_test_in_one_sentence(suite: Suite, marker: str, sentence: str) -> None:
    ran = suite(f"{marker}\ndef test_it(drydock_lease):\n    pass\n")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines([sentence])
    assert "pytest_plugin.py" not in ran.stdout.str()


def test_without_drydock_it_is_not_there_and_where_nobody_asks_nothing_of_it_is_loaded(
    pytester: pytest.Pytester, path: Path
) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_it():
            print(*sorted(name for name in sys.modules if name.startswith("drydock")))
        """
    )
    ran = pytester.run(*OPTIONS, "-s", "-p", "no:drydock", f"--drydock-store={path}")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "drydock" not in pytester.run(*OPTIONS, "-s", "-p", "no:drydock").stdout.get_lines_after("*collected*")[0]
    assert "drydock_lease" not in pytester.run(*OPTIONS, "--fixtures", "-p", "no:drydock").stdout.str()
    assert "drydock_lease" in pytester.run(*OPTIONS, "--fixtures").stdout.str()
    pytester.run(*OPTIONS, "-s").stdout.fnmatch_lines(["*drydock drydock.pytest_plugin", "*1 passed*"])
    assert not path.exists()


def test_the_suite_of_the_readme_runs(suite: Suite, dock: Connection) -> None:
    [code] = [block for block in blocks(README, "python") if "pytest" in block]
    first, conftest, tests = re.split(r"# (?:conftest|test_boot)\.py\n", code)
    assert first == ""
    dock.apply({"blueprint": {"lab": tomllib.loads(blocks(README, "toml")[0])["blueprint"]["lab"]}})
    suite(tests, conftest=conftest).assert_outcomes(passed=2)


# ---- losing


def test_a_ttl_is_renewed_while_its_test_runs(suite: Suite) -> None:
    ran = suite(
        """
import threading
host = lease("host", scope="module", ttl=1.5)

def test_longer(host):
    for _ in range(2):
        left = host.seconds_left
        while (now := host.seconds_left) <= left:
            assert now > 0
            left = now
    host.verify()

def test_on(host):
    assert host.id == 1
"""
    )
    ran.assert_outcomes(passed=2)


def test_without_a_ttl_there_is_nobody_who_renews(suite: Suite) -> None:
    ran = suite(
        """
import threading
host = lease("host")
def test_it(host):
    assert [t.name for t in threading.enumerate()] == ["MainThread", *(["drydock-heart"] if "://" in os.environ["STORE"] else [])]
"""
    )
    ran.assert_outcomes(passed=1)


LOSING = """
host = lease("host", scope={scope!r}, ttl={ttl!r})

def test_before(host):
    assert host.id == 1

def test_that_loses(host):
    with drydock.connect(os.environ["STORE"]) as dock:
        dock.release(host.id)
    {fails}

def test_after(host):
    host.verify()
    assert host.id == {next}
"""


@pytest.mark.parametrize("ttl", [None, 0.5])
@pytest.mark.parametrize(("scope", "next"), [("function", 3), ("module", 2), ("session", 2)])
def test_the_test_that_lost_its_thing_fails_once_and_the_next_has_another(
    suite: Suite, scope: str, next: int, ttl: float | None
) -> None:
    ran = suite(LOSING.format(scope=scope, ttl=ttl, next=next, fails="pass"))
    ran.assert_outcomes(passed=2, failed=1)
    lost = next - 1
    ran.stdout.fnmatch_lines([f"drydock: lease {lost} is lost: it is destroyed (host h?); see: drydock show {lost}"])


def test_a_test_that_fails_tells_also_that_it_has_lost_its_thing(suite: Suite) -> None:
    ran = suite(LOSING.format(scope="module", ttl=None, next=2, fails="assert 1 == 2"))
    ran.assert_outcomes(passed=2, failed=1)
    ran.stdout.fnmatch_lines([">*assert 1 == 2", "E*drydock: lease 1 is lost: *"])


def test_why_it_is_lost_is_told(suite: Suite) -> None:
    ran = suite(
        """
host = lease("host")
def test_it(host):
    with drydock.connect(os.environ["STORE"]) as dock:
        dock._engine.release_resource(host.resource.id, "power off in rack 3")
"""
    )
    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["drydock: lease 1 is lost: it is destroyed, since power off in rack 3 (host h1); *"])


def test_what_is_lost_when_nobody_looks_any_more_is_an_error_at_the_end(suite: Suite) -> None:
    ran = suite(
        """
host = lease("host")

@pytest.fixture
def used(host):
    yield
    with drydock.connect(os.environ["STORE"]) as dock:
        dock.release(host.id)

def test_it(used):
    pass
"""
    )
    ran.assert_outcomes(passed=1, errors=1)
    ran.stdout.fnmatch_lines(["drydock: lease 1 is lost: *"])


def test_what_was_made_of_a_lost_thing_is_made_anew(suite: Suite) -> None:
    ran = suite(
        """
host = lease("host", scope="module")

@pytest.fixture(scope="module")
def connection(host):
    yield f"to {host.id}"
    print("closed to", host.id)

def test_that_loses(connection):
    with drydock.connect(os.environ["STORE"]) as dock:
        dock.release(1)

def test_after(connection):
    assert connection == "to 2"
""",
        "-s",
    )
    ran.assert_outcomes(passed=1, failed=1)
    ran.stdout.fnmatch_lines(["*closed to 1", "*closed to 2"])


# ---- what is broken

BREAKING = """
class HardwareError(Exception):
    pass

host = lease("host", scope={scope!r}, blueprint="lab", breaks_on={breaks_on})

def test_first(host):
    {does}

def test_second(host):
    assert (host.id, host.resource.id) == {second}
"""


@pytest.mark.parametrize("scope", ["function", "module"])
@pytest.mark.parametrize("breaks_on", ["HardwareError", "(KeyError, HardwareError)", "lambda e: 'link' in str(e)"])
def test_a_thing_that_a_test_finds_broken_is_no_other_tests(
    suite: Suite, dock: Connection, scope: str, breaks_on: str
) -> None:
    dock.apply(hosts("h1"))
    ran = suite(BREAKING.format(scope=scope, breaks_on=breaks_on, does="raise HardwareError('no link')", second=(2, 2)))
    ran.assert_outcomes(passed=1, failed=1)
    ran.stdout.fnmatch_lines(["lease 1 (host h1, fence 1) is given back as broken"])
    [event] = told(dock, "resource.given-up")
    assert event.data["reason"].endswith("test_first: HardwareError: no link")


@pytest.mark.parametrize(
    ("breaks_on", "does", "failed"),
    [("HardwareError", "assert 0", 1), ("lambda e: False", "assert 0", 1), ("BaseException", "pytest.skip()", 0), ("()", "pytest.fail()", 1)],
)  # fmt: skip
def test_other_failures_break_nothing(suite: Suite, dock: Connection, breaks_on: str, does: str, failed: int) -> None:
    dock.apply(hosts("h1"))
    ran = suite(BREAKING.format(scope="function", breaks_on=breaks_on, does=does, second=(2, 1)))
    ran.assert_outcomes(passed=1, failed=failed, skipped=1 - failed)
    assert told(dock, "resource.given-up") == []


def test_who_cannot_tell_whether_it_is_whole_has_it_broken(suite: Suite, dock: Connection) -> None:
    dock.apply(hosts("h1"))
    suite(BREAKING.format(scope="function", breaks_on="lambda e: e.code", does="assert 0", second=(2, 2)))
    [event] = told(dock, "resource.given-up")
    assert event.data["reason"].endswith("test_first: AttributeError: 'AssertionError' object has no attribute 'code'")


def test_a_fixture_that_finds_it_broken_counts_as_well(suite: Suite, dock: Connection) -> None:
    ran = suite(
        """
host = lease("host", breaks_on=OSError)

@pytest.fixture
def booted(host):
    raise OSError("no prompt")

def test_it(booted):
    pass
"""
    )
    ran.assert_outcomes(errors=1)
    assert len(told(dock, "resource.given-up")) == 1


# ---- several at once, and their ends

NOTE = """
def note(lease, what):
    import fcntl
    with open(os.environ["NOTES"], "a") as notes:
        fcntl.flock(notes, fcntl.LOCK_EX)
        notes.write(f"{what} {lease.resource.name} {lease.fence}\\n")
"""

#: while it holds its thing, each test waits until others wait for it, as long as there are enough of them
CROWD = (
    NOTE
    + """
host = lease("host", ttl="1m")

@pytest.mark.parametrize("n", range(12))
def test_alone(host, n):
    note(host, "enter")
    with drydock.connect(os.environ["STORE"]) as dock:
        while Path(os.environ["NOTES"]).read_text().count("enter") < 9:
            if sum(one.status == "pending" for one in dock.leases()) >= 2:
                break
    note(host, "leave")
"""
)


def never_two_at_one_thing(notes: Path) -> dict[str, list[int]]:
    """The fences with which each thing was used, one after the other, as these notes tell; several were used at once."""
    inside: dict[str, str] = {}
    used: dict[str, list[int]] = {}
    together = 0
    for what, name, fence in map(str.split, notes.read_text().splitlines()):
        if what == "enter":
            assert name not in inside
            inside[name] = fence
            used.setdefault(name, []).append(int(fence))
        else:
            assert inside.pop(name) == fence
        together = max(together, len(inside))
    assert inside == {}
    assert together > 1
    assert all(fences == sorted(set(fences)) for fences in used.values())
    return used


def test_tests_of_several_processes_are_never_at_one_thing_at_once(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    suite(CROWD, "-n", "4").assert_outcomes(passed=12)
    used = never_two_at_one_thing(tmp_path / "notes")
    assert set(used) == {"h1", "h2"}
    assert sum(map(len, used.values())) == 12


def test_a_killed_test_process_gives_back_what_it_held(suite: Suite) -> None:
    ran = suite(
        """
host = lease("host", scope="session", blueprint="lab")

@pytest.mark.parametrize("n", range(6))
def test_it(host, n):
    if n == 2:
        os.kill(os.getpid(), 9)
""",
        "-n",
        "2",
        "--drydock-wait",
        "60s",
        kills=True,
    )
    ran.assert_outcomes(passed=5, failed=1)
    ran.stdout.fnmatch_lines(["*crashed while running *test_it?2?*"])


def test_a_pool_file_is_in_force_for_all_test_processes(
    suite: Suite, dock: Connection, pytester: pytest.Pytester
) -> None:
    (pytester.path / "pool.toml").write_text('[blueprint.two]\nkind = "host-pool"\nhosts = ["x1", "x2", "x3"]\n')
    many = "host = lease('host', blueprint='two')\n@pytest.mark.parametrize('n', range(6))\ndef test_it(host, n):\n    pass\n"
    suite(many, "-n", "3", "--drydock-pool", "pool.toml").assert_outcomes(passed=6)
    assert [event.data["names"] for event in told(dock, "blueprint.added")] == [["lab"], ["two"]]


def test_a_run_that_stops_at_the_first_failure_leaves_nothing(suite: Suite) -> None:
    ran = suite(
        "host = lease('host', scope='session')\ndef test_1(host):\n    assert 0\ndef test_2(host):\n    pass\n", "-x"
    )
    ran.assert_outcomes(failed=1)


HOLDING = """
host = lease("host", scope="session", blueprint="lab")
def test_it(host):
    print("holding", file=sys.__stdout__, flush=True)
    __import__("signal").pause()
"""


def test_an_interrupted_run_leaves_nothing(begin: Callable[..., Any], dock: Connection) -> None:
    run = begin(HOLDING, "-s")
    line_with("holding", run)
    assert len(dock.leases()) == 1
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) == pytest.ExitCode.INTERRUPTED
    assert [event.data.get("reason") for event in told(dock, "lease.released")] == [None]
    assert dock.leases() == []


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-s",), ("-v",)])
def test_who_waits_tells_why_while_he_waits_and_then_goes_on(
    begin: Callable[..., Any], dock: Connection, options: tuple[str, ...]
) -> None:
    held = dock.lease("host", count=2, owner="ann")
    run = begin("host = lease('host')\ndef test_it(host):\n    pass\n", *options)
    line = line_with("waiting for", run)
    worker = r"\[gw[01]\] " if "-n" in options else ""
    assert re.fullmatch(
        rf"drydock: {worker}test_\w+\.py::test_it is waiting for host \(lease \d+\): h1 held by lease \d+ \(ann\) since \S+; h2 held .*\n", line
    )  # fmt: skip
    held.release()
    assert run.stdout is not None
    assert "1 passed" in run.stdout.read()
    assert run.wait(60) == 0


def test_who_is_interrupted_while_he_waits_is_not_in_the_queue_any_more(
    begin: Callable[..., Any], dock: Connection
) -> None:
    dock.lease("host", count=2)
    run = begin("host = lease('host')\ndef test_it(host):\n    pass\n")
    line_with("waiting for", run)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) == pytest.ExitCode.INTERRUPTED
    assert [lease.status for lease in dock.leases()] == ["active", "active"]
