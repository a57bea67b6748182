"""Who lives on this machine can be seen at once; who is elsewhere cannot, and nobody guesses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from drydock.store import machine, presence
from drydock.store.machine import Machine
from drydock.store.postgres import _NAME, _channel
from drydock.testing.children import Child

LONGEST_CHANNEL = 63
LIVE = """
from drydock.store.machine import Machine
machine = Machine("s", {"XDG_STATE_HOME": sys.argv[1]})
say(machine.announce())
hear()
"""


def at(folder: Path, store: str = "s") -> Machine:
    return Machine(store, {"XDG_STATE_HOME": str(folder)})


def test_a_process_of_this_machine_is_seen_to_live_and_to_be_dead(tmp_path: Path) -> None:
    here = at(tmp_path)
    with Child(LIVE, tmp_path) as other:
        name = other.hear()
        assert here.is_alive(name) is True
        other.kill()
        assert here.is_alive(name) is False


def test_who_has_withdrawn_is_dead_and_may_withdraw_twice(tmp_path: Path) -> None:
    here = at(tmp_path)
    name = here.announce()
    assert here.is_alive(name) is True
    here.withdraw(name)
    here.withdraw(name)
    assert here.is_alive(name) is False


def test_of_who_has_another_file_or_another_store_nothing_is_known(tmp_path: Path) -> None:
    """Two containers share a kernel, but not a folder."""
    one, other, of_another_store = at(tmp_path / "1"), at(tmp_path / "2"), at(tmp_path / "1", "t")
    name = one.announce()
    assert other.is_alive(name) is None
    assert of_another_store.is_alive(name) is None


def test_of_who_was_started_on_another_machine_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same file, by a folder that machines share: the locks in it mean nothing."""
    name = at(tmp_path).announce()
    monkeypatch.setattr(machine, "boot", lambda: "ffffffff")
    assert at(tmp_path).is_alive(name) is None


def cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "file").touch()
    return at(tmp_path / "file")


def cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.lockf", refuse)
        return at(tmp_path)


def has_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Nobody's home is "~", in whatever folder we are."""
    monkeypatch.chdir(tmp_path)
    return Machine("s", {"XDG_STATE_HOME": "state"})


def tells_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Then the same file could be on two machines."""
    with monkeypatch.context() as patch:
        patch.setattr(machine, "boot", lambda: "")
        return at(tmp_path)


@pytest.mark.parametrize("where", [cannot_be_made, cannot_be_locked, has_no_home, tells_no_start])
def test_where_nobody_can_be_seen_each_has_a_name_all_the_same_and_keeps_watch_alone(
    where: Callable[[Path, pytest.MonkeyPatch], Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = where(tmp_path, monkeypatch)
    name, other = blind.announce(), blind.announce()
    assert name != other
    assert name.startswith("0.0.0.")
    assert blind.is_alive(name) is None
    assert blind.watch(name)
    blind.unwatch(name)
    blind.withdraw(name)
    assert not (tmp_path / "state").exists()


def test_one_keeps_watch_on_a_machine_and_one_on_the_next(tmp_path: Path) -> None:
    one, elsewhere = at(tmp_path / "1"), at(tmp_path / "2")
    name, other = one.announce(), one.announce()
    assert one.watch(name)
    assert not one.watch(other)
    assert elsewhere.watch(elsewhere.announce())
    one.unwatch(name)
    assert one.watch(other)
    one.unwatch(other)


def test_a_name_can_be_notified_however_long_the_numbers_of_its_file_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "identity", lambda _: (2**64 - 1, 2**64 - 1))
    name = at(tmp_path).announce()
    assert _NAME.fullmatch(name)
    assert len(_channel(name)) <= LONGEST_CHANNEL
