"""`semaphore`: what it counts, what it refuses, and that what a probe finds missing outside is withheld."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Clock, apply
from drydock_blueprints.semaphore import ProbeFailed, Semaphore

from drydock.engine import Engine
from drydock.errors import ConfigError, NothingFree
from drydock.model import Demand, Lease, LeaseStatus

READS = "import sys; print(open(sys.argv[1]).read(), end='')"


def probe(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def kind(count: int, *probe: str) -> Semaphore:
    return Semaphore("seats", {"count": count, "probe": list(probe)})


def pool(count: Any, **settings: Any) -> dict[str, Any]:
    return {"blueprint": {"seats": {"kind": "semaphore", "type": "licence", "count": count, **settings}}}


def lease(engine: Engine) -> Lease:
    return engine.lease(Demand("licence"), owner="t", wait_seconds=0)[0]


def name(lease: Lease) -> str:
    assert lease.resource is not None
    return lease.resource.name


# ---- what it says


def test_each_of_them_has_a_name_and_a_slot_lock_of_its_own() -> None:
    assert [(b.name, b.slot_lock.key) for b in kind(2).bindings()] == [
        ("seats-1", "semaphore(seats, 1)"),
        ("seats-2", "semaphore(seats, 2)"),
    ]


def test_so_many_can_be_held_and_no_more(engine: Engine) -> None:
    apply(engine, pool(2))
    assert [name(lease(engine)), name(lease(engine))] == ["seats-1", "seats-2"]
    with pytest.raises(NothingFree):
        lease(engine)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, 'missing setting "count"'),
        ({"count": "5"}, '"count" must be of type int'),
        ({"count": True}, '"count" must be of type int'),
        ({"count": 0}, '"count" must be a whole number from 1 to 100000, not "0"'),
        ({"count": -1}, '"count" must be a whole number from 1 to 100000, not "-1"'),
        ({"count": 100_001}, '"count" must be a whole number from 1 to 100000, not "100001"'),
        ({"count": 1, "probe": "lmstat -a"}, '"probe" must be of type list, not "lmstat -a"'),
        ({"count": 1, "probe": ["lmstat", 5]}, '"probe" must be a list of strings, and "5" may not be one of them'),
        ({"count": 1, "probe": [""]}, '"probe" must begin with a program'),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_applied(
    engine: Engine, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        apply(engine, {"blueprint": {"seats": {"kind": "semaphore", "type": "licence", **settings}}})
    assert sentence in str(refused.value)


def test_what_it_counts_must_be_named(engine: Engine) -> None:
    with pytest.raises(ConfigError, match='missing "type"'):
        apply(engine, {"blueprint": {"seats": {"kind": "semaphore", "count": 1}}})


# ---- what the probe says


def test_what_there_is_less_outside_is_withheld_the_last_first() -> None:
    assert kind(5, *probe("print(3)")).missing(()) == ["seats-5", "seats-4"]


def test_what_nobody_holds_is_withheld_before_what_somebody_holds() -> None:
    held = {"seats-5", "seats-3", "seats-2"}
    assert kind(5, *probe("print(4)")).missing(held) == ["seats-4"]
    assert kind(5, *probe("print(2)")).missing(held) == ["seats-4", "seats-1", "seats-5"]


@pytest.mark.parametrize("there_are", ["5", "6", "999999999999999999"])
def test_nothing_is_withheld_where_enough_is_there(there_are: str) -> None:
    assert kind(5, *probe(f"print({there_are})")).missing(()) == []


def test_all_is_withheld_where_nothing_is_there() -> None:
    assert kind(3, *probe("print(' 0 ')")).missing({"seats-1"}) == ["seats-3", "seats-2", "seats-1"]


def test_nobody_is_asked_where_there_is_no_probe() -> None:
    assert kind(5).missing(()) == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("print()", 'must print one whole number, not "\\x0a"'),
        ("print('three')", "must print one whole number"),
        ("print('3 of 5')", "must print one whole number"),
        ("print(-1)", "must print one whole number"),
        ("print(2.5)", "must print one whole number"),
        ("print('٣')", "must print one whole number"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\x00')", "must print one whole number"),
        ("print('9' * 10_000_000)", "died of signal 13"),
        ("print(3, flush=True); raise SystemExit(4)", "exited with 4"),
        ("import os; os.kill(os.getpid(), 9)", "died of signal 9"),
    ],
)
def test_a_probe_that_says_no_number_has_seen_nothing(code: str, sentence: str) -> None:
    reset = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    with pytest.raises(ProbeFailed) as failed:
        kind(5, *probe(reset + code)).missing(())
    assert sentence in str(failed.value)


def test_a_probe_that_is_not_there_is_named() -> None:
    with pytest.raises(ProbeFailed, match=r'the probe "/no/such/probe" cannot be run: No such file or directory'):
        kind(5, "/no/such/probe").missing(())


def test_no_shell_reads_what_the_probe_is_given() -> None:
    code = "import sys; print(len(sys.argv[1:]) if sys.argv[1] == '$(touch x); *' else 0)"
    assert kind(1, *probe(code, "$(touch x); *")).missing(()) == []


def test_a_probe_that_reads_is_told_that_there_is_nothing_to_read() -> None:
    reads = repr(probe("import sys; print(0 if sys.stdin.read() else 1)"))
    code = "from drydock_blueprints.semaphore import Semaphore\n"
    code += f"print(Semaphore('seats', {{'count': 1, 'probe': {reads}}}).missing(()))"
    asked = subprocess.run([sys.executable, "-c", code], input="7", capture_output=True, text=True, check=True)
    assert asked.stdout == "[]\n"


# ---- what becomes of it


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What the probe prints."""
    return tmp_path / "outside"


def withheld(engine: Engine) -> list[str]:
    return [binding.name for binding in engine.store.offers.bindings() if not binding.enabled]


def test_no_more_can_be_held_than_there_are_outside_until_they_are_back(
    engine: Engine, clock: Clock, outside: Path
) -> None:
    outside.write_text("2\n")
    apply(engine, pool(3, probe=probe(READS, outside)))
    assert [name(lease(engine)), name(lease(engine))] == ["seats-1", "seats-2"]
    with pytest.raises(NothingFree):
        lease(engine)
    outside.write_text("3\n")
    engine.tend()
    assert withheld(engine) == ["seats-3"], "the time of the next look has not come"
    clock.forward(60)
    engine.tend()
    assert name(lease(engine)) == "seats-3"


def test_who_holds_one_that_is_not_there_any_more_keeps_it_and_it_is_withheld_afterwards(
    engine: Engine, clock: Clock, outside: Path
) -> None:
    outside.write_text("2")
    apply(engine, pool(2, probe=probe(READS, outside)))
    first, second = lease(engine), lease(engine)
    outside.write_text("1")
    clock.forward(60)
    engine.tend()
    assert engine.verify(second.id).status is LeaseStatus.ACTIVE
    engine.release(second.id)
    with pytest.raises(NothingFree):
        lease(engine)
    engine.release(first.id)
    assert name(lease(engine)) == "seats-1"


def test_an_idle_one_is_withheld_though_the_last_is_held(engine: Engine, clock: Clock, outside: Path) -> None:
    outside.write_text("3")
    apply(engine, pool(3, probe=probe(READS, outside)))
    held = [lease(engine) for _ in range(3)]
    engine.release(held[1].id)
    outside.write_text("2")
    clock.forward(60)
    engine.tend()
    assert withheld(engine) == ["seats-2"]


def test_a_probe_that_fails_changes_nothing_and_the_log_tells_why(engine: Engine, clock: Clock, outside: Path) -> None:
    outside.write_text("1")
    apply(engine, pool(2, probe=probe(READS, outside)))
    outside.write_text("the server is down")
    clock.forward(60)
    engine.tend()
    assert withheld(engine) == ["seats-2"]
    [failed] = engine.store.events.latest(10, event="blueprint.observe-failed")
    assert failed.blueprint == "seats"
    assert 'must print one whole number, not "the server is down"' in failed.data["error"]


def test_the_pool_file_says_how_often_to_look(engine: Engine, clock: Clock, outside: Path) -> None:
    outside.write_text("1")
    apply(engine, pool(2, probe=probe(READS, outside), observe_every="5s"))
    outside.write_text("2")
    clock.forward(4.9)
    engine.tend()
    assert withheld(engine) == ["seats-2"]
    clock.forward(0.1)
    engine.tend()
    assert withheld(engine) == []


def test_how_often_to_look_is_refused_where_nobody_looks(engine: Engine) -> None:
    with pytest.raises(ConfigError, match='"observe_every": kind "host-pool" does not look'):
        apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"], "observe_every": "5s"}}})


def test_the_command_withholds_too_and_bindings_shows_it(cli: Cli, tmp_path: Path, outside: Path) -> None:
    outside.write_text("1")
    file = tmp_path / "pool.toml"
    file.write_text(
        '[blueprint.seats]\nkind = "semaphore"\ntype = "licence"\ncount = 2\n'
        f"probe = {json.dumps(probe(READS, outside))}\nobserve_every = '100ms'\n"
    )
    assert cli("apply", str(file)).returncode == 0
    assert cli("run", "-t", "licence", "--no-wait", "-n", "2", "--", "true").returncode == 3
    assert [(b["name"], b["enabled"]) for b in cli("bindings", "--json").objects] == [
        ("seats-1", True),
        ("seats-2", False),
    ]
    outside.write_text("2")
    assert cli("run", "-t", "licence", "-n", "2", "--", "true").returncode == 0, "whoever waits looks"
