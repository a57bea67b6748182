"""`semaphore`: what it counts, what it refuses, and that what a probe finds missing outside is withheld."""

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Clock, apply
from drydock_blueprints.semaphore import ProbeFailed, Semaphore

from drydock.engine import Engine
from drydock.errors import ConfigError, NothingFree
from drydock.model import Demand, Lease

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
    assert kind(1, *probe("import sys; print(1 if sys.stdin.read() == '' else 0)")).missing(()) == []
