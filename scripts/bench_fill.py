"""Make a store that has lived: many hosts, half of them held, and a long history.

Drydock makes the store and applies a pool of four hosts; everything else is then written in bulk straight into its
tables, since leasing a million times would take an hour. Each row is one that Drydock would have written: a held host
has its resource, its two slot locks, its lease and their events; a lease that is over has its two events, and counts in
the fence of its resource. `drydock doctor` finds nothing wrong with it.

Every other host is arm64. All arm64 hosts but one are held and no other host is, so that half are held, and a request for
arm64 has exactly one that it can get. Half of the free hosts have an idle resource; the others were never leased.
"""

import sqlite3
import time
from pathlib import Path

import drydock

POOL = {
    "blueprint": {
        "lab": {
            "kind": "host-pool",
            "hosts": [{"name": f"h{n}", "attributes": {"arch": "x86_64" if n % 2 else "arm64"}} for n in range(4)],
        }
    }
}
SERIES = "WITH RECURSIVE n (i) AS (SELECT :low UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :high)"
BINDINGS = f"""{SERIES}
INSERT INTO binding (blueprint, shape, name, slot_lock, lease_locks, attributes, enabled, in_service, listed, resource, fence)
SELECT s.blueprint, s.id, 'h' || i, 'host(h' || i || ')', '[]', s.attributes, 1, 1, 1, NULL, 0
FROM n JOIN shape s ON s.attributes = CASE i % 2 WHEN 0 THEN '{{"arch":"arm64"}}' ELSE '{{"arch":"x86_64"}}' END"""
# Binding 1 is h0, the one arm64 host that stays free; each fourth has an idle resource of the other kind.
RESOURCES = """
INSERT INTO resource (blueprint, binding, shape, name, type, status, attributes, slot_locks, lease_locks, seats, used,
    open, fence, built_for, not_before, created_at, idle_since)
SELECT blueprint, id, shape, name, 'host', 'active', attributes, json_array(slot_lock), '[]', 1, id % 2, 1,
    id % 2, NULL, 0, :now - 9000 + id * 0.01, :now - 9000 + id * 0.01
FROM binding WHERE id <> 1 AND (id % 2 = 1 OR id % 4 = 0) ORDER BY id"""
RESOURCE_LOCKS = """
INSERT INTO slot_lock (key, holder, taken_at)
SELECT 'host(' || name || ')', 'resource:' || id, created_at FROM resource WHERE status = 'active' ORDER BY name"""
RESOURCE_EVENTS = """
INSERT INTO event (at, event, lease, resource, blueprint, data)
SELECT created_at, 'resource.activated', built_for, id, 'lab', json_object('name', name) FROM resource ORDER BY id"""
OVER = f"""{SERIES}
INSERT INTO lease (status, type, blueprints, owner, priority, attributes, turn, resource, slot_locks, fence, warned, process, not_before,
    failures, created_at, granted_at, ended_at)
SELECT 'destroyed', 'host', '[]', 'bench@host', 0, '{{}}', :now - 8000 + i * 0.001,
    1 + i % :resources, json_array('seat(resource:' || (1 + i % :resources) || ').slot(0)'),
    1 + i / :resources, 0, NULL, 0, 0, :now - 8000 + i * 0.001, :now - 8000 + i * 0.001, :now - 7999 + i * 0.001 FROM n"""
OVER_EVENTS = """
INSERT INTO event (at, event, lease, resource, blueprint, data)
SELECT CASE k.column1 WHEN 1 THEN l.granted_at ELSE l.ended_at END,
    CASE k.column1 WHEN 1 THEN 'lease.activated' ELSE 'lease.released' END, l.id, l.resource, 'lab',
    CASE k.column1 WHEN 1 THEN json_object('fence', l.fence) ELSE '{}' END
FROM lease l, (VALUES (1), (2)) k WHERE l.id >= :low AND l.id < :high"""
FENCES = "UPDATE resource SET fence = used + 1 + :finished / :resources"
HELD = """
INSERT INTO lease (status, type, blueprints, owner, priority, attributes, turn, resource, slot_locks, fence, warned, process, not_before,
    failures, created_at, granted_at)
SELECT 'active', type, '[]', 'bench@host', 0, '{}', :now - 60, id, json_array('seat(resource:' || id || ').slot(0)'), fence,
    0, NULL, 0, 0, :now - 60, :now - 60 FROM resource WHERE used = 1 ORDER BY id"""
HELD_LOCKS = """
INSERT INTO slot_lock (key, holder, taken_at)
SELECT 'seat(resource:' || resource || ').slot(0)', 'lease:' || id, granted_at FROM lease WHERE status = 'active'
ORDER BY 1"""
HELD_EVENTS = """
INSERT INTO event (at, event, lease, resource, blueprint, data)
SELECT granted_at, 'lease.activated', id, resource, 'lab', json_object('fence', fence) FROM lease WHERE status = 'active'"""
COUNTS = (
    "UPDATE shape SET things = (SELECT count(*) FROM binding WHERE shape = shape.id)",
    "UPDATE binding SET resource = (SELECT id FROM resource WHERE status <> 'destroyed' AND binding = binding.id)",
    "UPDATE blueprint SET live = (SELECT count(*) FROM resource)",
    "UPDATE store SET config = config + 1",
)
AT_ONCE = 100_000


def fill_pool(address: str, hosts: int, held: int = 0) -> None:
    """Make a store with so many hosts, each with its resource, of which so many are held by nobody's process."""
    with drydock.connect(address) as dock:
        dock.apply({"blueprint": {"lab": {"kind": "host-pool", "hosts": [f"h{n}" for n in range(hosts)]}}})
        with dock.lease("host", wait=0, count=hosts):
            pass
        if held:
            dock.lease("host", wait=0, count=held, detach=True)


def fill(path: Path, bindings: int, finished: int) -> None:
    """Make a store with so many hosts, half of them held, and so many leases that are over."""
    with drydock.connect(str(path)) as dock:
        dock.apply(POOL)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    now = time.time()

    def run(statement: str, **parameters: float) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement, {"now": now, **parameters})
        connection.execute("COMMIT")

    run(BINDINGS, low=len(POOL["blueprint"]["lab"]["hosts"]), high=bindings)
    run(RESOURCES)
    run(RESOURCE_LOCKS)
    run(RESOURCE_EVENTS)
    [resources] = connection.execute("SELECT count(*) FROM resource").fetchone()
    for low in range(0, finished, AT_ONCE):
        run(OVER, low=low, high=min(low + AT_ONCE, finished), resources=resources)
    for low in range(1, finished + 1, AT_ONCE):
        run(OVER_EVENTS, low=low, high=low + AT_ONCE)
    run(FENCES, finished=finished, resources=resources)
    run(HELD)
    run(HELD_LOCKS)
    run(HELD_EVENTS)
    for statement in COUNTS:
        run(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
