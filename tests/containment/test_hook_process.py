"""The process that hooks run in: when it comes and goes, what becomes of what hooks print, and who may end a hook."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

from containment.conftest import KINDS, Yard, is_there, until
from drydock.blueprint import Local, ResourceInfo, Ssh, Support
from drydock.errors import BlueprintError
from drydock.hook_process import Lock
from drydock.hooks import OwnProcess, _resource_told, resource_heard

# ---- what hooks print


def test_what_a_hook_prints_is_an_event_and_is_shown(yard: Yard, capfd: pytest.CaptureFixture[str]) -> None:
    """PLUGIN-005: also what its programs print; and nothing of it is on our stdout."""
    yard.offer("prints", "activate_lease")
    lease = yard.lease()
    text = "hammer\nnail\n\\xff\\x00 wood\nsaw\n"
    [event] = yard.connection.events.latest(10, event="lease.output")
    assert dict(event.data) == {"hook": "activate_lease", "output": text}
    assert (event.lease, event.resource, event.blueprint) == (lease.id, lease.resource.id, "odd")
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", text)


def test_of_what_a_hook_prints_much_of_the_beginning_and_the_end_are_kept(
    yard: Yard, capfd: pytest.CaptureFixture[str]
) -> None:
    """PLUGIN-062"""
    yard.offer("prints_much")
    yard.lease()
    [printed] = yard.events("resource.output")
    assert printed["output"].startswith("first\nxxxx")
    assert printed["output"].endswith("xxxxlast\n")
    assert "characters left out" in printed["output"]
    assert len(printed["output"]) < 2100
    told = capfd.readouterr()
    assert len(told.err) < 2 * 1024 * 1024
    assert "[what else it prints is not shown]" in told.err


def test_what_a_hook_printed_before_it_failed_is_kept(yard: Yard) -> None:
    yard.offer("prints_and_raises")
    with pytest.raises(BlueprintError, match="no timber"):
        yard.lease()
    assert yard.events("resource.output")[0] == {"hook": "activate", "output": "hammer\n"}


def test_a_hook_that_prints_nothing_leaves_no_event(yard: Yard) -> None:
    yard.offer("nothing")
    yard.lease().release()
    assert yard.events("lease.output") == yard.events("resource.output") == []


def test_nothing_that_a_hook_prints_is_on_the_stdout_of_a_command(yard: Yard, cli: Cli) -> None:
    """PLUGIN-005"""
    yard.offer("prints")
    done = cli("lease", "--type", "thing", "--json")
    assert [lease["status"] for lease in done.objects] == ["active"]
    assert "hammer" in done.stderr
    assert "hammer" in cli("log", "resource:1").stdout


def test_a_stderr_that_nobody_reads_does_not_keep_a_hook_beyond_its_time(yard: Yard, cli: Cli) -> None:
    """The command is stuck then, as any would be; the hook is killed all the same."""
    yard.offer("prints_much_and_hangs")
    with cli.start("lease", "--type", "thing", "--no-wait", UNRULY_SECONDS="0.5") as command:
        until(lambda: yard.noted("processes"))
        yard.nobody_is_left()
        assert command.poll() is None
        assert "took longer than its 0.5s" in command.communicate(timeout=60)[1]


# ---- when it comes and goes


def test_who_runs_no_hook_starts_no_process(yard: Yard) -> None:
    yard.offer("nothing")
    yard.lease("host").release()
    assert yard.server is None


def test_one_process_loads_the_kinds_of_one_hook_after_another(yard: Yard) -> None:
    yard.offer("nothing")
    yard.lease().release()
    first = yard.server
    yard.lease().release()
    assert yard.server is first
    assert len(yard.noted("hooks")) == 5


def test_it_is_gone_when_the_connection_is_closed(yard: Yard) -> None:
    yard.offer("nothing")
    yard.lease()
    pid = yard.server._process.pid
    yard.dock.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    yard.dock.close()


def test_it_is_gone_when_its_user_ends_without_closing_anything(yard: Yard) -> None:
    yard.offer("nothing")
    code = (
        "import sys, drydock; dock = drydock.connect(sys.argv[1]); dock.lease('thing');"
        "print(dock._engine.steps.hooks._server._process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code, yard.store], capture_output=True, text=True)
    assert done.stderr == ""
    assert not is_there(int(done.stdout))


def test_it_is_started_anew_when_it_was_killed(yard: Yard) -> None:
    yard.offer("nothing")
    lease = yard.lease()
    os.kill(yard.server._process.pid, signal.SIGKILL)
    assert lease.release()
    assert lease.status == "destroyed"
    assert yard.noted("hooks") == ["activate", "activate_lease", "destroy_lease"]


def test_a_kind_is_loaded_anew_when_a_pool_file_was_applied(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "unruly.py").write_text((KINDS / "unruly.py").read_text())
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", str(tmp_path / "kinds"))
    yard.offer("nothing", seats=2)
    yard.lease()
    text = (KINDS / "unruly.py").read_text().replace('self.note("hooks", hook)', 'self.note("hooks", "new " + hook)')
    (tmp_path / "kinds" / "unruly.py").write_text(text)
    yard.offer("nothing", seats=3)
    yard.lease()
    assert yard.noted("hooks") == ["activate", "activate_lease", "new activate_lease"]


def test_a_fork_of_its_user_leaves_it_alone(yard: Yard) -> None:
    yard.offer("nothing")
    yard.lease()
    pid = os.fork()
    if pid == 0:
        try:
            yard.server.end()
            yard.dock._engine.steps.hooks.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert yard.server.is_fit(yard.server._config)
    yard.lease("host")


def test_a_python_that_cannot_be_started_is_told_of(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.offer("nothing")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BlueprintError, match="its process cannot be started: FileNotFoundError"):
        yard.lease()


def test_what_a_resource_stands_on_is_told_to_the_other_side() -> None:
    ways = (None, Local("/srv"), Ssh("10.0.0.1", 2222, "ann", folder="/srv"))
    for on in (None, *(Support("h1", "host", {"a": [1, None]}, way) for way in ways)):
        about = ResourceInfo(7, "it", "thing", {"x": 1.5}, on)
        assert resource_heard(_resource_told(about)) == about


def test_a_fork_that_a_hook_has_left_does_not_keep_its_lock(tmp_path: Path) -> None:
    """Nor from somebody who waits for it already."""
    first, second = (Lock(str(tmp_path / "hooks" / "resource-1")) for _ in range(2))
    assert first.take()
    reading, writing = os.pipe()
    fork = os.fork()
    if fork == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        assert not second.take()
        first.release()
        assert second.take()
        assert not Lock(second.path).take()
    finally:
        os.close(writing)
        os.waitpid(fork, 0)


# ---- who may end a hook


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
@pytest.mark.parametrize("what", ["hang", "ignores_sigterm", "children_and_hangs"])
def test_a_signal_ends_the_command_and_the_hook(yard: Yard, cli: Cli, number: int, code: int, what: str) -> None:
    """PLUGIN-042: what the hook was to build is torn down, and the request is gone."""
    yard.offer(what)
    with cli.start("lease", "--type", "thing") as command:
        until(lambda: yard.noted("processes"))
        command.send_signal(number)
        told = command.communicate(timeout=60)
        assert command.returncode == code, told
    yard.nobody_is_left()
    assert yard.noted("hooks") == ["activate", "destroy"]
    assert yard.statuses("lease") == ["destroyed"]
    assert yard.statuses("resource") == ["destroyed"]


@pytest.mark.parametrize("kernel", ["", "import os; del os.pidfd_open"], ids=["here", "without pidfd"])
@pytest.mark.parametrize("what", ["ignores_sigterm", "children_and_hangs", "daemon_and_hangs"])
def test_nothing_of_a_hook_outlives_a_command_that_is_killed(
    yard: Yard, cli: Cli, what: str, kernel: str, tmp_path: Path
) -> None:
    """And the next command that comes by goes on with what it was about."""
    (tmp_path / "sitecustomize.py").write_text(kernel)
    cli.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    yard.offer(what)
    with cli.start("lease", "--type", "thing") as command:
        until(lambda: yard.noted("hangs"))
        command.kill()
        command.communicate()
    yard.nobody_is_left()
    yard.offer("nothing")
    assert yard.lease().status == "active"


def test_a_fork_of_whoever_asked_does_not_keep_the_hook_alive(yard: Yard) -> None:
    """It has our end of the pipe open, and we are killed."""
    yard.offer("hang")
    code = (
        "import os, signal, sys, threading, time, drydock\n"
        "dock = drydock.connect(sys.argv[1])\n"
        "def fork():\n"
        "    while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
        "    child = os.fork()\n"
        "    if child == 0: time.sleep(600)\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=fork).start()\n"
        "dock.lease('thing')\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, yard.store, str(yard.notes / "hangs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        child = int(asking.stdout.readline())
        try:
            asking.wait(60)
            yard.nobody_is_left()
            assert is_there(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_it_has_no_more_than_its_own_pipes(yard: Yard) -> None:
    """No descriptor of the store, nor of anything else that its user has open, is in the hands of a hook."""
    yard.offer("tells_its_files")
    with (yard.notes / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        yard.lease()
    assert not [name for name in yard.noted("files") if "secret" in name or (".db" in name and ".hooks" not in name)]
    assert isinstance(yard.dock._engine.steps.hooks, OwnProcess)
