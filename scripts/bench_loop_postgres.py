"""The yardstick on PostgreSQL: what somebody would write by hand with SKIP LOCKED, on the same tables.

A grant and a release write what Drydock's write, with the same durability, and nothing else is done: see `bench_loop`.
A transaction is two or three journeys to the server, as few as Drydock's. Nobody is woken: who finds nothing looks again
after a millisecond.
"""

import os
import time

import psycopg
from bench_loop import Looking

FIND = """
SELECT id FROM resource WHERE status = 'active' AND open = 1 AND used < seats AND rests_until IS NULL AND used = 0
AND shape = $1 ORDER BY idle_since, id LIMIT 1 FOR UPDATE SKIP LOCKED"""
ASK = """
INSERT INTO lease (status, type, blueprints, owner, priority, attributes, turn, slot_locks, warned, process, not_before,
    failures, created_at) VALUES ('pending', 'host', '[]', 'bench', 0, '{}', $1, '[]', 0, $2, 0, 0, $1) RETURNING id"""
LOCK = "INSERT INTO slot_lock (key, holder, taken_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING key"
SEAT = "UPDATE resource SET used = used + 1, fence = fence + 1 WHERE id = $1 RETURNING fence"
GRANT = """
UPDATE lease SET status = 'active', resource = $1, fence = $2, slot_locks = $3, granted_at = $4
WHERE id = $5 AND status = 'pending'"""
TELL = "INSERT INTO event (at, event, lease, resource, blueprint, data) VALUES ($1, $2, $3, $4, 'lab', $5)"
END = "UPDATE lease SET status = 'destroyed', ended_at = $1, worker = NULL WHERE id = $2 AND status = 'active'"
UNLOCK = "DELETE FROM slot_lock WHERE key = $1 AND holder = $2"
LEAVE = "UPDATE resource SET used = used - 1, idle_since = $1 WHERE id = $2"


class PostgresLoop(Looking):
    """One process's connection."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor)
        self.execute = self.connection.execute
        self.execute("SET search_path = drydock")
        self.execute("SET enable_seqscan = off")
        row = self.execute("SELECT shape FROM resource LIMIT 1").fetchone()
        assert row
        self.shape = row[0]
        self.process = os.urandom(6).hex()

    def lease(self) -> tuple[int, int] | None:
        with self.connection.pipeline():
            self.execute("BEGIN")
            found = self.execute(FIND, [self.shape]).fetchone()
            if found is None:
                self.execute("ROLLBACK")
                return None
            now, resource = time.time(), found[0]
            asked = self.execute(ASK, [now, self.process])
            seat = self.execute(SEAT, [resource])
            [lease], [fence] = asked.fetchone() or [0], seat.fetchone() or [0]
            key = f"seat(resource:{resource}).slot(0)"
            taken = self.execute(LOCK, [key, f"lease:{lease}", now])
            self.execute(GRANT, [resource, fence, f'["{key}"]', now, lease])
            self.execute(TELL, [now, "lease.activated", lease, resource, f'{{"fence": {fence}}}'])
            self.execute("COMMIT")
            if not taken.fetchall():
                raise RuntimeError(f"{key} is taken")
        return lease, resource

    def release(self, held: tuple[int, int]) -> None:
        lease, resource = held
        now = time.time()
        with self.connection.pipeline():
            self.execute("BEGIN")
            self.execute(END, [now, lease])
            self.execute(UNLOCK, [f"seat(resource:{resource}).slot(0)", f"lease:{lease}"])
            self.execute(TELL, [now, "lease.released", lease, resource, "{}"])
            self.execute(LEAVE, [now, resource])
            self.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()
