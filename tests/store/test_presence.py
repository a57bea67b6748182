"""Who lives is told by the kernel: a name is alive while its process lives and has not withdrawn it."""

import fcntl
import os
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LAB, apply

from drydock.engine import Engine
from drydock.model import Demand
from drydock.store import presence
from drydock.testing.children import Child

pytestmark = pytest.mark.usefixtures("path")

ANNOUNCE = """
from drydock.store import presence
name = presence.announce(sys.argv[1])
say(name)
hear()
presence.withdraw(sys.argv[1], name)
presence.withdraw(sys.argv[1], name)
say("withdrawn")
hear()
"""

ASK = """
from drydock.store import presence
say(*(presence.is_alive(sys.argv[1], name) for name in sys.argv[2:]))
"""


@pytest.fixture
def live(tmp_path: Path) -> str:
    return str(tmp_path / "drydock.db.live")


def seen_by_another(live: str, *names: str) -> list[str]:
    with Child(ASK, live, *names) as child:
        [line] = child.rest()
    return line.split()


def test_a_name_is_alive_until_it_is_withdrawn(live: str) -> None:
    with Child(ANNOUNCE, live) as child:
        name = child.hear()
        assert presence.is_alive(live, name)
        assert presence.is_alive(live, name)  # asking leaves no trace
        child.tell()
        child.expect("withdrawn")
        assert not presence.is_alive(live, name)


def test_a_name_is_dead_as_soon_as_its_process_is_killed(live: str) -> None:
    with Child(ANNOUNCE, live) as child, Child(ANNOUNCE, live) as other:
        name, another = child.hear(), other.hear()
        child.kill()
        assert not presence.is_alive(live, name)
        assert presence.is_alive(live, another)


def test_one_process_may_have_several_names_and_knows_its_own(live: str) -> None:
    one, two = presence.announce(live), presence.announce(live)
    assert one != two
    assert seen_by_another(live, one, two) == ["True", "True"]
    presence.withdraw(live, one)
    assert [presence.is_alive(live, name) for name in (one, two)] == [False, True]
    assert seen_by_another(live, one, two) == ["False", "True"]
    presence.withdraw(live, two)


def test_asking_for_the_living_does_not_make_the_dead_live(live: str) -> None:
    assert not presence.is_alive(live, "00000000002a")
    assert seen_by_another(live, "00000000002a") == ["False"]


FORKS = """
from drydock.store import presence
name, another = presence.announce(sys.argv[1]), presence.announce(sys.argv[1])
child = os.fork()
if not child:
    say(name, os.getpid(), presence.is_alive(sys.argv[1], name))
    own = presence.announce(sys.argv[1])
    presence.withdraw(sys.argv[1], name)
    say(own)
    hear()
    say(presence.is_alive(sys.argv[1], another))
    hear()
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_forked_child_sees_its_parent_live_but_does_not_keep_it_alive(live: str) -> None:
    with Child(FORKS, live) as child:
        name, grandchild, alive = child.hear().split()
        own = child.hear()
        assert alive == "True"
        assert presence.is_alive(live, name)  # the child could not withdraw it
        child.process.kill()
        child.process.wait()
        try:
            assert not presence.is_alive(live, name)
            assert presence.is_alive(live, own)
            child.tell()
            child.expect("False")  # nor does the child take what it saw its parent hold for its own
        finally:
            os.kill(int(grandchild), 9)


def test_a_started_command_does_not_keep_its_parent_alive(live: str) -> None:
    code = ANNOUNCE.replace("say(name)", 'import subprocess\nsay(name, subprocess.Popen(["sleep", "600"]).pid)')
    with Child(code, live) as child:
        name, sleeper = child.hear().split()
        child.kill()
        try:
            assert not presence.is_alive(live, name)
        finally:
            os.kill(int(sleeper), 9)


def test_closing_one_store_leaves_the_others_of_the_process_alive(connect: Callable[..., Engine], live: str) -> None:
    """Closing any descriptor of the file would drop all record locks of the process, in every thread."""
    stays = connect().store
    name = stays.process
    gone: list[str] = []

    def another() -> None:
        store = connect().store
        gone.append(store.process)
        store.close()

    thread = threading.Thread(target=another)
    thread.start()
    thread.join()
    assert seen_by_another(live, name, *gone) == ["True", "False"]


def test_a_lease_outlives_the_connection_that_took_it_and_ends_with_its_process(
    connect: Callable[..., Engine], live: str
) -> None:
    engine, next_one = connect(), connect()
    apply(engine, LAB)
    [lease] = engine.lease(Demand("host"), owner="t", wait_seconds=0)
    next_one.tend()
    assert [held.id for held in next_one.store.leases.live()] == [lease.id]
    process = engine.store.process
    engine.store.close()
    next_one.tend()
    assert [held.id for held in next_one.store.leases.live()] == [lease.id]
    presence.withdraw(live, process)  # as the kernel does when the process dies
    next_one.tend()
    assert next_one.store.leases.live() == []


# ---- who keeps watch

WATCH = """
from drydock.store import presence
name = presence.announce(sys.argv[1])
while order := hear():
    if order == "watch":
        say(presence.watch(sys.argv[1], name))
    elif order == "unwatch":
        presence.unwatch(sys.argv[1], name)
        say("unwatched")
"""


def watches(child: Child) -> bool:
    child.tell("watch")
    return child.hear() == "True"


def test_of_all_processes_that_ask_one_keeps_watch_and_keeps_it(live: str) -> None:
    with Child(WATCH, live) as one, Child(WATCH, live) as two, Child(WATCH, live) as three:
        assert [watches(child) for child in (one, two, three)] == [True, False, False]
        assert [watches(child) for child in (three, two, one)] == [False, False, True]


def test_when_the_watcher_is_killed_or_lets_go_the_next_that_asks_takes_over(live: str) -> None:
    with Child(WATCH, live) as one, Child(WATCH, live) as two, Child(WATCH, live) as three:
        assert [watches(child) for child in (one, two, three)] == [True, False, False]
        one.kill()
        assert [watches(child) for child in (two, three)] == [True, False]
        for _ in range(2):
            two.tell("unwatch")
            two.expect("unwatched")
        assert [watches(child) for child in (three, two)] == [True, False]
        two.tell("unwatch")  # by one who does not watch: it takes nothing from the other
        two.expect("unwatched")
        assert [watches(child) for child in (two, three)] == [False, True]


def test_of_two_connections_of_one_process_one_keeps_watch(connect: Callable[..., Engine], live: str) -> None:
    one, two = connect().store, connect().store
    with Child(WATCH, live) as other:
        assert [one.may_watch(), two.may_watch(), watches(other), one.may_watch()] == [True, False, False, True]
        two.close()  # closing a connection that does not watch takes nothing from the one that does
        assert [watches(other), one.may_watch()] == [False, True]
        three = connect().store
        one.stop_watching()
        assert [three.may_watch(), one.may_watch(), watches(other)] == [True, False, False]
        three.close()
        assert [watches(other), one.may_watch()] == [True, False]


def test_a_thread_that_asks_while_another_lets_go_does_not_watch_without_the_lock(
    live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = presence.announce(live), presence.announce(live)
    assert presence.watch(live, one)
    lockf, seen = fcntl.lockf, []

    def and_another_asks(fd: int, command: int, *where: int) -> None:
        if command == fcntl.LOCK_UN:
            monkeypatch.setattr(fcntl, "lockf", lockf)
            seen.append(presence.watch(live, two))
        lockf(fd, command, *where)

    monkeypatch.setattr(fcntl, "lockf", and_another_asks)
    presence.unwatch(live, one)
    assert seen == [False]
    with Child(WATCH, live) as other:
        assert [watches(other), presence.watch(live, two)] == [True, False]


def test_a_forked_child_does_not_keep_its_parents_watch(live: str) -> None:
    forks = """
    from drydock.store import presence
    name = presence.announce(sys.argv[1])
    say(presence.watch(sys.argv[1], name))
    child = os.fork()
    if not child:
        say(presence.watch(sys.argv[1], name), os.getpid())
        presence.unwatch(sys.argv[1], name)
        hear()
        os._exit(0)
    os.waitpid(child, 0)
    """
    with Child(textwrap.dedent(forks), live) as parent, Child(WATCH, live) as other:
        parent.expect("True")
        watching, grandchild = parent.hear().split()
        assert watching == "False"
        assert not watches(other)  # nor could the child let it go
        parent.process.kill()
        parent.process.wait()
        try:
            assert watches(other)
        finally:
            os.kill(int(grandchild), 9)
