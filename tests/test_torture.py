"""scripts/torture: a short one finds nothing, and each fault that is planted in Drydock first is found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).parent.parent / "scripts" / "torture_lab"
#: the script, in a Python in which something was changed first: whatever is forked from it has the change, too
RUN = "import runpy\n{planted}\nrunpy.run_path({lab!r}, run_name='__main__')"

#: a resource has a seat for everybody, and nobody needs the slot lock of one
SEATS_WITHOUT_END = """
from drydock.store import resources, slot_locks

def take_seat(self, id):
    taken = "UPDATE resource SET used = used + 1, fence = fence + 1 WHERE id = :id RETURNING fence"
    rows = self._store.ask(taken, id=id)
    return lambda: rows()[0][0]

assert "r.used < r.seats" in resources._ROOM
resources._ROOM = resources._ROOM.replace("r.used < r.seats", "1")
resources.Resources.take_seat = take_seat
resolve = slot_locks.SlotLocks.resolve
slot_locks.SlotLocks.ask_for = lambda self, *locks_and_holder: lambda: resolve(self, *locks_and_holder)
"""

#: every second grant of a resource has the fence of the one before
FENCES_THAT_STAND_STILL = """
from drydock.store.resources import Resources

take_seat = Resources.take_seat

def slowly(self, id):
    answer = take_seat(self, id)
    return lambda: (fence := answer()) and (fence + 1) // 2

Resources.take_seat = slowly
"""

#: everybody takes everybody else for dead
THE_LIVING_BURIED = """
from drydock.store.sqlite import SqliteStore

SqliteStore.is_alive = lambda self, process: process == self.process
"""

#: a grant that was told is not on disk for a while
GRANTS_IN_MEMORY = """
from functools import partialmethod

from drydock.store.postgres import PostgresStore
from drydock.testing.postgres import PostgresServer

PostgresServer.__init__ = partialmethod(PostgresServer.__init__, settings={"wal_writer_delay": "10s"})

PostgresStore.hasty = property(lambda self: True, lambda self, hasty: None)
"""


def torture(folder: Path, *arguments: str, planted: str = "") -> "subprocess.CompletedProcess[str]":
    code = RUN.format(lab=str(LAB), planted=planted)
    command = [sys.executable, "-c", code, "--seed", "14118", *arguments]
    folder.mkdir()
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "TMPDIR": str(folder)}
    )


def figures(done: "subprocess.CompletedProcess[str]") -> dict[str, list[str]]:
    """The table: what stands in the columns of each row."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[1:])
    return {name: told for name, *told in rows}


def test_a_short_torture_finds_nothing_wrong_and_leaves_nothing(tmp_path: Path) -> None:
    done = torture(tmp_path / "tmp", "--grants", "600", "--disk", "pretend")
    assert done.returncode == 0, done.stdout + done.stderr
    told = figures(done)
    assert sum(map(int, told["grants"])) >= 600
    assert all(int(kills) > 0 for kills in told["kill -9"])
    assert int(told["disk-full moments"][1]) > 0
    assert int(told["stopped past the ttl"][0]) > 0
    for row in ("double grants", "lost grants", "other violations", "leaked leases and locks"):
        assert told[row] == ["0", "0"], done.stdout
    assert told["integrity and doctor"] == ["ok", "ok"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_short_torture_with_a_server_that_crashes_finds_nothing_wrong_and_leaves_nothing(tmp_path: Path) -> None:
    options = ["--grants", "60", "--processes", "8", "--kill-every", "0.2", "--outage-every", "2"]
    done = torture(tmp_path / "tmp", "--store", "postgres", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    told = figures(done)
    assert int(told["grants"][0]) >= 60
    assert int(told["kill -9"][0]) > 0
    assert int(told["server stopped at once"][0]) > 0
    for row in ("double grants", "lost grants", "other violations", "leaked leases and locks"):
        assert told[row] == ["0"], done.stdout
    assert told["integrity and doctor"] == ["ok"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_torture_finds_grants_that_a_crash_of_the_server_undoes(tmp_path: Path) -> None:
    options = ["--grants", "40", "--processes", "6", "--kill-every", "0.5", "--outage-every", "2"]
    done = torture(tmp_path / "tmp", "--store", "postgres", *options, planted=GRANTS_IN_MEMORY)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "torture: FAILED PostgreSQL: " in done.stderr
    told = figures(done)
    assert any(int(told[row][0]) for row in ("double grants", "lost grants", "other violations")), done.stdout


@pytest.mark.parametrize(
    ("planted", "row", "rule"),
    [
        (SEATS_WITHOUT_END, "double grants", "overlap: "),
        (FENCES_THAT_STAND_STILL, "other violations", "fence: "),
        (THE_LIVING_BURIED, "lost grants", "lost: "),
    ],
    ids=["double grants", "fences", "lost grants"],
)
def test_a_torture_finds_a_planted_fault_and_keeps_what_shows_it(
    tmp_path: Path, planted: str, row: str, rule: str
) -> None:
    done = torture(tmp_path / "tmp", "--grants", "100", "--disk", "never", planted=planted)
    assert done.returncode == 1, done.stdout + done.stderr
    assert int(figures(done)[row][0].replace(",", "")) > 0, done.stdout
    assert f"torture: FAILED ordinary disk: {rule}" in done.stderr
    assert "run it again with: scripts/torture --grants 100 --seed 14118 " in done.stderr
    [kept] = (tmp_path / "tmp").iterdir()
    assert str(kept) in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "drydock.testing.history", *(kept / "ordinary-disk" / "history").iterdir()],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 1
    assert rule in again.stdout
    assert (kept / "drydock.db").exists()
