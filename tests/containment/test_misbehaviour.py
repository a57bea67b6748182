"""Whatever a hook does costs one lease or resource: never the process that wanted it, another lease, or the store.

The hooks run as they do for a user, in a process of their own that really ends, hangs or floods.
"""

import contextlib
import os
import resource
import signal
from pathlib import Path

import pytest
from conftest import Cli

from containment.conftest import Yard, is_there, until
from drydock.errors import BlueprintError, ConfigError, LeaseLost, NothingFree, Refused, StoreDamaged
from drydock.testing.children import Child

#: what it does, and what is told of it
FAILURES = [
    pytest.param("no", "TypeError: must return nothing, not bool", id="PLUGIN-028"),
    pytest.param("words", "TypeError: must return nothing, not str", id="PLUGIN-018-str"),
    pytest.param("not_implemented", "TypeError: must return nothing, not NotImplementedType", id="PLUGIN-013"),
    pytest.param("a_coroutine", "TypeError: must return nothing, not coroutine", id="PLUGIN-018-coroutine"),
    pytest.param("a_generator", "TypeError: must return nothing, not generator", id="PLUGIN-018-generator"),
    pytest.param("raises", "RuntimeError: no timber", id="raises"),
    pytest.param("refuses", "Refused: not ours", id="refuses"),
    pytest.param("ten_megabytes", "RuntimeError: xxxxxxxx", id="PLUGIN-038"),
    pytest.param("unprintable", "<unprintable Unprintable>", id="PLUGIN-041"),
    pytest.param("interrupt", "KeyboardInterrupt", id="PLUGIN-042"),
    pytest.param("exits", "SystemExit: 4", id="exits"),
    pytest.param("generator_exit", "GeneratorExit", id="PLUGIN-044"),
    pytest.param("stubborn", "Stubborn: no Exception", id="PLUGIN-044-own"),
    pytest.param("out_of_memory", "MemoryError", id="PLUGIN-045"),
    pytest.param("recursion", "RecursionError: maximum recursion", id="PLUGIN-045-recursion"),
    pytest.param("a_long_chain", "RuntimeError: number 999", id="PLUGIN-046"),
    pytest.param(
        "later_than_ever", "TypeError: must ask to be called again after seconds, not inf", id="later_than_ever"
    ),
    pytest.param(
        "later_in_words", "TypeError: must ask to be called again after seconds, not soon", id="later_in_words"
    ),
    pytest.param("exits_hard", "its process exited with 3", id="exits_hard"),
    pytest.param("exits_hard_and_well", "its process exited with 0", id="exits_hard_and_well"),
    pytest.param("becomes_another_program", "its process exited with 0", id="becomes_another_program"),
    pytest.param("kills_itself", "its process died of SIGKILL", id="PLUGIN-048"),
    pytest.param("segfault", "its process died of SIGSEGV", id="PLUGIN-048-segfault"),
    pytest.param("abort", "its process died of SIGABRT", id="PLUGIN-049"),
    pytest.param("kills_its_parent", "the process that watched it has ended", id="PLUGIN-050"),
    pytest.param("kills_its_grandparent", "the process that watched it was killed", id="PLUGIN-050-all"),
    pytest.param("daemon_and_raises", "RuntimeError: no timber", id="PLUGIN-058"),
    pytest.param("child_and_raises", "RuntimeError: no timber", id="child_and_raises"),
    pytest.param("closes_all", "its process exited with 1", id="PLUGIN-060"),
    pytest.param("garbage", "bad answer from its process", id="PLUGIN-061"),
    pytest.param("garbage_without_end", "its answer is longer than 4194304 bytes", id="PLUGIN-062"),
    pytest.param("asks_at_the_terminal", "OSError: [Errno 6]", id="PLUGIN-065"),
]
HANGS = [
    pytest.param("hang", id="hang"),
    pytest.param("ignores_sigterm", id="PLUGIN-052"),
    pytest.param("stops_itself", id="PLUGIN-053"),
    pytest.param("keeps_the_interpreter_busy", id="PLUGIN-054"),
    pytest.param("children_and_hangs", id="children_and_hangs"),
]


def fails(yard: Yard, told: str) -> None:
    """The request for it fails with these words, and what has nothing to do with it goes on."""
    before = yard.lease("host")
    with pytest.raises(BlueprintError) as failed:
        yard.lease()
    assert f'blueprint "odd" failed in activate: {told}' in str(failed.value)
    assert len(str(failed.value)) < 1000
    before.verify()
    assert yard.lease("host").resource.name == "h2"
    yard.nobody_is_left()
    assert not [lock for lock in yard.dock.locks() if "unruly" in lock.key]
    assert yard.statuses("resource")[1] == "destroyed"
    assert len(yard.events("resource.broken")) == len(yard.noted("hooks")) / 2
    yard.offer("nothing")
    assert yard.lease().status == "active"


@pytest.mark.parametrize(("what", "told"), FAILURES)
def test_a_hook_that_fails_costs_what_it_was_to_build(
    yard: Yard, what: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that it started runs on, and no core is left. See the ids for the rows of bad inputs."""
    monkeypatch.chdir(tmp_path)
    yard.offer(what)
    fails(yard, told)
    assert not list(tmp_path.glob("core*"))


def test_a_hook_leaves_no_core_though_its_caller_would(yard: Yard) -> None:
    """PLUGIN-049"""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yard.offer("tells_its_limits")
        yard.lease()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert yard.noted("limits") == ["0"]


@pytest.mark.parametrize("what", HANGS)
def test_a_hook_that_does_not_return_is_killed_with_all_that_it_started(
    yard: Yard, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRULY_SECONDS", "0.3")
    yard.offer(what)
    fails(yard, "it took longer than its 0.3s and was killed")
    assert yard.noted("processes")


def test_a_hook_that_stops_whoever_watches_it_is_killed_too(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRULY_SECONDS", "0.3")
    monkeypatch.setattr("drydock.hooks.LATE_SECONDS", 1.0)
    yard.offer("stops_its_parent")
    fails(yard, "the process that watched it hung")


@pytest.mark.parametrize("when", ["activate", "activate_lease"])
@pytest.mark.parametrize(
    "what",
    [
        pytest.param("forks_and_both_return", id="PLUGIN-056"),
        pytest.param("forks_and_one_raises", id="PLUGIN-056-raises"),
        pytest.param("thread", id="thread"),
        pytest.param("reads", id="PLUGIN-064"),
        pytest.param("prints_much", id="PLUGIN-062-stdout"),
    ],
)
def test_a_hook_that_is_odd_but_returns_has_done_its_work(yard: Yard, what: str, when: str) -> None:
    yard.offer(what, when)
    assert yard.lease().status == "active"
    assert yard.noted("hooks") == ["activate", "activate_lease"]


@pytest.mark.parametrize("what", [pytest.param("child", id="PLUGIN-057"), pytest.param("daemon", id="PLUGIN-058")])
def test_what_a_hook_left_running_on_purpose_lives_on(yard: Yard, what: str) -> None:
    """Also when no hook can come any more, and though it has the output open. Nobody waits for it."""
    yard.offer(what)
    lease = yard.lease()
    [pid] = map(int, yard.noted("processes"))
    lease.release()
    assert is_there(pid)
    yard.dock.release(lease.id)
    yard.dock.close()
    assert is_there(pid)


def test_what_a_hook_changes_in_its_process_changes_nothing_in_ours(yard: Yard) -> None:
    """PLUGIN-066"""
    mask = os.umask(0o027)
    os.umask(mask)
    before = (dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGINT))
    yard.offer("changes_the_world")
    yard.lease()
    assert (dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGINT)) == before
    now = os.umask(mask)
    assert now == mask


def test_a_hook_runs_where_its_caller_is_now(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.offer("tells_where_it_is", "activate_lease")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("WHERE", name)
        monkeypatch.chdir(tmp_path / name)
        yard.lease().release()
    assert yard.noted("where") == ["one one", "two two"]


def test_a_hook_that_fails_as_a_lease_ends_keeps_that_lease_alone(yard: Yard) -> None:
    """PLUGIN-034"""
    yard.offer("kills_itself", "destroy_lease", seats=2)
    other = yard.lease()
    lease = yard.lease()
    lease.release()
    assert lease.status == "released"
    assert other.status == "active"
    [failed] = yard.events("lease.destroy-failed")
    assert "its process died of SIGKILL" in failed["error"]


def test_a_thing_that_cannot_be_torn_down_keeps_its_slot_lock(yard: Yard) -> None:
    """PLUGIN-036"""
    yard.offer("exits_hard", "destroy")
    lease = yard.lease()
    lease.release()
    yard.dock._engine.release_resource(lease.resource.id)
    assert yard.statuses("resource") == ["released"]
    assert [lock.key for lock in yard.dock.locks()] == ["unruly(odd)"]
    assert "its process exited with 3" in yard.events("resource.destroy-failed")[0]["error"]


def test_a_hook_that_releases_its_own_lease_has_lost_it(yard: Yard) -> None:
    """PLUGIN-068: what it prepared is cleaned up, and whoever wanted it is told."""
    yard.offer("releases_its_lease", "activate_lease")
    with pytest.raises(LeaseLost, match="lease 1 is lost"):
        yard.lease()
    assert yard.statuses("lease") == ["destroyed"]
    assert yard.noted("hooks")[-1] == "destroy_lease"


def test_a_hook_that_keeps_the_store_locked_is_killed_and_the_store_goes_on(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PLUGIN-069"""
    if not yard.store.endswith(".db"):  # nobody can lock all of the other store
        return
    monkeypatch.setenv("UNRULY_SECONDS", "0.5")
    yard.offer("keeps_the_store_busy")
    fails(yard, "it took longer than its 0.5s and was killed")
    assert yard.noted("keeps")


def test_a_kind_that_opens_the_stores_file_costs_nobody_what_he_was_granted(yard: Yard, cli: Cli) -> None:
    """PLUGIN-006: as it closes the file the kernel drops SQLite's locks, so that another process takes the log away. Then
    nothing more goes into it, and nothing of it over the database."""
    if not yard.store.endswith(".db"):  # no other store is a file
        return
    yard.offer("nothing", plans="opens_the_store")
    yard.lease()
    [theirs] = cli("lease", "--type", "host", "--json").objects
    assert not Path(f"{yard.store}-wal").exists()
    with pytest.raises(StoreDamaged, match="or its log was deleted or replaced while in use; run the command again"):
        yard.lease("host")
    yard.dock.close()
    [again] = cli("lease", "--type", "host", "--json").objects
    assert (theirs["resource"]["name"], again["resource"]["name"]) == ("h1", "h2")
    assert again["id"] == theirs["id"] + 1
    assert cli("verify", str(theirs["id"])).returncode == 0
    assert cli("doctor").returncode == 0


@pytest.mark.parametrize("what", ["deletes_the_store", "deletes_its_log"])
def test_a_hook_that_takes_the_store_away_ends_all_who_use_it(yard: Yard, cli: Cli, what: str) -> None:
    """PLUGIN-070: they are told so, instead of going on in a file that nobody else sees."""
    if not yard.store.endswith(".db"):
        return
    yard.offer(what)
    held = yard.lease("host")
    done = cli("lease", "--type", "thing")
    assert (done.returncode, done.stdout) == (8, "")
    assert "was deleted or replaced while in use" in done.stderr
    with pytest.raises(StoreDamaged, match="was deleted or replaced while in use"):
        held.release()
    yard.nobody_is_left()


def test_a_hook_that_links_into_the_root_of_another_kind_leads_nobody_out_of_it(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PLUGIN-074"""
    root, victim = tmp_path / "root", tmp_path / "victim"
    for folder in (root, victim):
        folder.mkdir()
    (root / ".drydock-root").touch()
    (victim / "precious").touch(mode=0o640)
    monkeypatch.setenv("PLANTED", f"{root}/scratch-0:{victim}")
    yard.dock.apply({"blueprint": {"scratch": {"kind": "scratch-dir", "root": str(root), "limit": 1}}})
    yard.offer("plants_a_link", "activate destroy")
    thing = yard.lease()
    folder = yard.lease("scratch-dir")
    assert list(Path(folder.resource.attributes["path"]).iterdir()) == []
    Path(folder.resource.attributes["path"]).rmdir()
    yard.dock._engine.release_resource(thing.resource.id)
    folder.release()
    yard.dock._engine.release_resource(folder.resource.id)
    assert yard.statuses("resource") == ["destroyed", "destroyed"]
    assert [file.name for file in root.iterdir()] == [".drydock-root"]
    assert [(file.name, file.stat().st_mode & 0o777) for file in victim.iterdir()] == [("precious", 0o640)]


def test_what_is_secret_is_in_nothing_that_a_hook_says(yard: Yard, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """PLUGIN-040: neither in what its requester is told, nor in what is kept of it for everybody."""
    monkeypatch.setenv("LAB_PASSWORD", "hunter2!")
    yard.offer("tells_secrets")
    url = "postgresql://drydock:ho:me@db.example.org/drydock?sslpassword=fi=ne"
    monkeypatch.setenv("DRYDOCK_STORE", url)
    with pytest.raises(BlueprintError) as failed:
        yard.lease()
    said = "*** for postgresql://drydock:***@db.example.org/drydock?sslpassword=***"
    assert str(failed.value) == f'blueprint "odd" failed in activate: RuntimeError: cannot log in: {said}'
    assert yard.events("resource.output")[0]["output"] == f"{said}\n"
    assert said in yard.events("resource.broken")[0]["error"]
    told = cli("log", "--json").stdout + cli("show", "lease:1").stdout
    assert said in told
    assert not [word for word in ("hunter2!", "ho:me", "fi=ne") if word in told]


def test_what_is_secret_is_not_told_by_plans_either(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """PLUGIN-040"""
    monkeypatch.setenv("LAB_PASSWORD", "hunter2!")
    yard.offer("nothing", plans="told_with_a_secret")
    with pytest.raises(ConfigError) as refused:
        yard.lease()
    assert str(refused.value) == 'blueprint "odd": *** is not the password'


# ---- what is not done when it returns


def test_a_hook_that_is_not_ready_is_called_again(yard: Yard) -> None:
    """PLUGIN-026: to return means that it is done; who needs more time says so."""
    yard.offer("is_not_ready_twice")
    assert yard.lease(wait=60).status == "active"
    assert yard.noted("hooks") == ["activate"] * 3 + ["activate_lease"]


def test_a_hook_that_is_never_ready_keeps_its_requester_as_long_as_he_will_wait(yard: Yard) -> None:
    """PLUGIN-026"""
    yard.offer("is_never_ready")
    with pytest.raises(NothingFree):
        yard.lease(wait=0.3)
    assert yard.statuses("lease") == yard.statuses("resource") == ["destroyed"]
    assert yard.lease("host").status == "active"


def test_what_was_not_torn_down_is_met_by_what_is_built_in_its_place(yard: Yard) -> None:
    """PLUGIN-037: nobody looks again after `destroy` has returned. It is the next `activate` that fails, and says at what."""
    yard.offer("builds_what_must_not_be_there")
    lease = yard.lease()
    lease.release()
    yard.dock._engine.release_resource(lease.resource.id)
    assert yard.statuses("resource") == ["destroyed"]
    before = yard.lease("host")
    with pytest.raises(BlueprintError, match='"odd" failed in activate: FileExistsError'):
        yard.lease()
    before.verify()
    assert yard.statuses("resource")[0::2] == ["destroyed"] * len(yard.statuses("resource")[0::2])
    (yard.notes / "built").rmdir()
    assert yard.lease().status == "active"


def test_a_lease_that_was_released_while_a_hook_prepared_it_stays_so(yard: Yard) -> None:
    """PLUGIN-030"""
    yard.offer("waits", "activate_lease")
    with Child(HOLDER_TELLS, yard.store) as holder:
        until(lambda: yard.noted("work"))
        assert yard.dock.release(1)
        assert yard.statuses("lease") == ["released"]
        (yard.notes / "go").touch()
        holder.expect("ready", "lease 1 is lost: it is destroyed")
    assert yard.statuses("lease") == ["destroyed"]
    assert yard.noted("hooks") == ["activate", "activate_lease", "destroy_lease"]
    yard.nobody_is_left()


@pytest.mark.parametrize(
    "plans", ["only_once", "always_another_in_vain", "always_on_another", "now_on_a_host_now_in_its_place"]
)
def test_plans_that_are_others_each_time_are_asked_for_no_oftener(yard: Yard, plans: str) -> None:
    """PLUGIN-081: the request waits, and ends when its time is up."""
    yard.offer("nothing", plans=plans)
    held = [yard.lease("host"), yard.lease("host")]
    with pytest.raises(NothingFree):
        yard.lease(wait=0.5)
    assert 2 <= len(yard.noted("plans")) <= 5
    for lease in held:
        lease.verify()
    assert yard.statuses("lease")[:2] == ["active", "active"]
    assert set(yard.statuses("lease")[2:]) == {"destroyed"}


def test_what_a_hook_refuses_comes_back_as_what_it_was(yard: Yard) -> None:
    yard.offer("refuses")
    with pytest.raises(BlueprintError) as failed:
        yard.lease()
    assert isinstance(failed.value.__cause__, Refused)
    assert str(failed.value.__cause__) == "not ours"


# ---- loading


LOADING = """
import os, sys
if os.getpid() != {asks}:  # not where its plans are asked for
    {what}
from drydock.blueprint import Builder, Plan, slot_lock
class Odd(Builder):
    type = "odd"
    def plans(self, wanted):
        yield Plan("it", (slot_lock("odd", "it"),))
    def activate(self, resource):
        pass
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        pytest.param("import time; time.sleep(600)", "it took longer than 0.4s and was killed", id="PLUGIN-004"),
        pytest.param("os._exit(3)", "its process exited with 3", id="exits"),
        pytest.param("os.kill(os.getpid(), 11)", "its process died of SIGSEGV", id="dies"),
        pytest.param("os.closerange(0, 1024)", "its process exited with 1", id="closes_all"),
        pytest.param("raise KeyboardInterrupt", "KeyboardInterrupt", id="interrupts"),
        pytest.param("sys.exit()", "SystemExit", id="sys.exit"),
    ],
)
def test_a_kind_that_ends_whoever_imports_it_ends_only_the_process_of_hooks(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    monkeypatch.setattr("drydock.hooks.IMPORT_SECONDS", 0.4)
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "odd.py").write_text(LOADING.format(what=what, asks=os.getpid()))
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", f"{tmp_path / 'kinds'}:{os.environ['DRYDOCK_BLUEPRINTS']}")
    yard.dock.apply({"blueprint": {"odd-one": {"kind": "odd"}}})
    yard.offer("nothing")
    with pytest.raises(BlueprintError) as failed:
        yard.lease("odd")
    assert f'blueprint "odd" failed in import: {told}' in str(failed.value)
    assert yard.lease("thing").status == "active"
    assert yard.lease("host").status == "active"


@pytest.mark.parametrize("version", ["99", '"1"', "None", "True", "1.0"])
def test_a_kind_for_another_version_of_the_interface_is_named_and_not_loaded(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """PLUGIN-012"""
    (tmp_path / "kinds").mkdir()
    text = LOADING.format(what="pass", asks=0).replace('type = "odd"', f'type = "odd"; api = {version}')
    (tmp_path / "kinds" / "odd.py").write_text(text)
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", str(tmp_path / "kinds"))
    with pytest.raises(BlueprintError) as failed:
        yard.dock.apply({"blueprint": {"odd-one": {"kind": "odd"}}})
    version = version.replace('"', "'")
    assert f'blueprint "odd" failed in import: it speaks plugin API {version}, this drydock 1' in str(failed.value)


# ---- signals, and the death of whoever asked

HOLDER_TELLS = """
import drydock
dock = drydock.connect(sys.argv[1])
say("ready")
try:
    dock.lease("thing")
except drydock.errors.LeaseLost as lost:
    say(lost)
"""
HOLDER = """
import drydock
dock = drydock.connect(sys.argv[1])
say("ready")
dock.lease("thing")
"""


def test_when_whoever_asked_is_killed_the_hook_is_gone_before_another_calls_it(yard: Yard) -> None:
    """The second waits as long as the first one lives, even if whoever should kill the first cannot do it just now."""
    yard.offer("waits", "activate destroy")
    locks = Path(f"{yard.connection.hooks_folder}")
    with Child(HOLDER, yard.store) as first:
        until(lambda: yard.noted("work"))
        [keeper] = map(int, yard.noted("keepers"))
        os.kill(keeper, signal.SIGSTOP)
        [pid] = map(int, yard.noted("processes"))
        try:
            first.kill()
            with Child(
                "import drydock\ndrydock.connect(sys.argv[1])._engine.tend()\nsay('tended')", yard.store
            ) as other:
                until(lambda: opened_by(locks) - {pid, keeper} or len(yard.noted("work")) > 1)
                assert yard.noted("work") == ["begins"]
                assert is_there(pid)
                os.kill(keeper, signal.SIGCONT)
                until(lambda: len(yard.noted("work")) == 2)
                assert not is_there(pid)
                (yard.notes / "go").touch()
                other.expect("tended")
        finally:
            os.kill(keeper, signal.SIGCONT) if is_there(keeper) else None
    assert yard.noted("work") == ["begins", "begins", "ends"]
    assert not list(locks.iterdir())


def opened_by(folder: Path) -> set[int]:
    """The processes that have a file in this folder open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()).startswith(f"{folder}{os.sep}"):
                        found.add(int(process.name))
    return found
