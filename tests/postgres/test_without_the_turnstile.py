"""Writers queue at one lock of the server's. What is promised must not rest on it: here it is taken away."""

import contextlib
from pathlib import Path

import drydock
from drydock.doctor import examine
from drydock.testing.children import Child
from drydock.testing.history import check, read

HOSTS = ["h1", "h2"]
WORKERS, GRANTS = 6, 15
#: it is tried again whatever is refused, as a program would do it that knows that others are faster now and then
WORKER = """
import contextlib, time
from drydock import errors
from drydock.api import connect
from drydock.store import postgres
from drydock.testing.history import ACQUIRE, RELEASE, Outcome, Recorder

execute, asked = postgres.Connection.execute, "pg_advisory_xact_lock($1)"
passed = []

def without_the_turnstile(self, query, *arguments, **options):
    if isinstance(query, str) and asked in query:
        passed.append(query)
        query = query.replace(asked, "$1::bigint")
    return execute(self, query, *arguments, **options)

postgres.Connection.execute = without_the_turnstile

def insist(work):
    while True:
        try:
            return work()
        except (errors.StatusChanged, errors.StoreError):
            time.sleep(0.01)

store, name, file, grants = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
recorder = Recorder(file, name)
dock = insist(lambda: connect(store))
say("ready")
hear()

def lease():
    number = recorder.call(ACQUIRE)
    try:
        lease = dock.lease("host", owner=name, wait=2.0)
    except errors.NothingFree:
        recorder.returned(number, Outcome.FAIL)
    except (errors.StatusChanged, errors.StoreError, errors.LeaseLost):
        recorder.returned(number, Outcome.UNKNOWN)
    else:
        recorder.returned(number, Outcome.OK, lease.resource.name, lease.fence)
        return lease

def release(lease):
    number = recorder.call(RELEASE, lease.resource.name, lease.fence)
    insist(lease.release)
    recorder.returned(number, Outcome.OK)

for _ in range(grants):
    if held := lease():
        release(held)
insist(dock._engine.tend)  # what could not be given back when it was given up
say(len(passed))
hear()
"""


def test_without_the_turnstile_nothing_is_granted_twice_and_no_lock_is_left(postgres_url: str, tmp_path: Path) -> None:
    """Whoever is too late is told, and deadlocks are tried again; that is what the line of the writers spares us."""
    with drydock.connect(postgres_url) as dock, contextlib.ExitStack() as stack:
        dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": HOSTS}}})
        files = [tmp_path / f"{number}.jsonl" for number in range(WORKERS)]
        children = [
            stack.enter_context(Child(WORKER, postgres_url, number, file, GRANTS)) for number, file in enumerate(files)
        ]
        for child in children:
            child.expect("ready")
        for child in children:
            child.tell()
        assert all(int(child.hear()) > 0 for child in children)
        listed = [(lease.resource.name, lease.fence) for lease in dock.leases() if lease.resource and lease.fence]
        assert check(read(files), final=listed) == []
        assert listed == []
        assert [lock for lock in dock.locks() if lock.holder.startswith("lease:")] == []
        broken = [found for found in examine(dock._engine.store) if found.broken]
        assert [found for found in broken if found.rule != "queue-not-served"] == []
