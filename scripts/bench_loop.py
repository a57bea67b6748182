"""The yardstick: what somebody would write by hand with `sqlite3`, on the same tables, for the same durability.

A grant writes what Drydock's writes: the lease and then its grant, the seat's slot lock, the resource's count and
fence, the event. So does a release. What it leaves out is everything else: no choice of blueprint, no attributes, no
queue, no check of the file, no records, no fair order. The resources must be there already.
"""

import fcntl
import os
import sqlite3
import time

FIND = """
SELECT id FROM resource WHERE status = 'active' AND open = 1 AND used < seats AND rests_until IS NULL
AND shape = :shape AND used = 0 ORDER BY idle_since, id LIMIT 1"""
ASK = """
INSERT INTO lease (status, type, blueprints, owner, priority, attributes, turn, slot_locks, warned, process, not_before,
    failures, created_at) VALUES ('pending', 'host', '[]', 'bench', 0, '{}', :now, '[]', 0, :process, 0, 0, :now) RETURNING id"""
LOCK = "INSERT INTO slot_lock (key, holder, taken_at) VALUES (:key, :holder, :now) ON CONFLICT DO NOTHING RETURNING key"
SEAT = "UPDATE resource SET used = used + 1, fence = fence + 1 WHERE id = :resource RETURNING fence"
GRANT = """
UPDATE lease SET status = 'active', resource = :resource, fence = :fence, slot_locks = :locks, granted_at = :now
WHERE id = :lease AND status = 'pending'"""
TELL = "INSERT INTO event (at, event, lease, resource, blueprint, data) VALUES (:now, :event, :lease, :resource, 'lab', :data)"
END = "UPDATE lease SET status = 'destroyed', ended_at = :now, worker = NULL WHERE id = :lease AND status = 'active'"
UNLOCK = "DELETE FROM slot_lock WHERE key = :key AND holder = :holder"
LEAVE = "UPDATE resource SET used = used - 1, idle_since = :now WHERE id = :resource"

RETRY_SECONDS = 0.001


class Looking:
    """Whoever finds nothing free looks again."""

    def lease(self) -> tuple[int, int] | None:
        """Take a free resource: the ids of lease and resource, or None when none is free."""
        raise NotImplementedError

    def wait(self) -> tuple[int, int]:
        """Take a free resource, looking again until there is one."""
        while (held := self.lease()) is None:
            time.sleep(RETRY_SECONDS)
        return held


class Loop(Looking):
    """One process's connection; with `turnstile`, each transaction stands in a `flock` queue first."""

    def __init__(self, path: str, synchronous: str, *, turnstile: bool) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=60, cached_statements=256)
        self.execute = self.connection.execute
        self.execute(f"PRAGMA synchronous = {synchronous}")
        self.execute("PRAGMA foreign_keys = ON")
        self.execute("PRAGMA trusted_schema = OFF")
        self.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
        self.shape = self.execute("SELECT shape FROM resource LIMIT 1").fetchone()[0]
        self.process = os.urandom(6).hex()
        self._fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if turnstile else None

    def lease(self) -> tuple[int, int] | None:
        self._begin()
        found = self.execute(FIND, {"shape": self.shape}).fetchone()
        if found is None:
            self._end("ROLLBACK")
            return None
        now, resource = time.time(), found[0]
        lease = self.execute(ASK, {"process": self.process, "now": now}).fetchone()[0]
        key = f"seat(resource:{resource}).slot(0)"
        if not self.execute(LOCK, {"key": key, "holder": f"lease:{lease}", "now": now}).fetchall():
            raise RuntimeError(f"{key} is taken")
        fence = self.execute(SEAT, {"resource": resource}).fetchone()[0]
        granted = {"lease": lease, "resource": resource, "fence": fence, "locks": f'["{key}"]', "now": now}
        self.execute(GRANT, granted)
        self._tell("lease.activated", lease, resource, f'{{"fence": {fence}}}')
        self._end("COMMIT")
        return lease, resource

    def release(self, held: tuple[int, int]) -> None:
        lease, resource = held
        self._begin()
        now = time.time()
        self.execute(END, {"lease": lease, "now": now})
        self.execute(UNLOCK, {"key": f"seat(resource:{resource}).slot(0)", "holder": f"lease:{lease}"})
        self._tell("lease.released", lease, resource, "{}")
        self.execute(LEAVE, {"resource": resource, "now": now})
        self._end("COMMIT")

    def close(self) -> None:
        self.connection.close()
        if self._fd is not None:
            os.close(self._fd)

    def _begin(self) -> None:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.execute("BEGIN IMMEDIATE")

    def _end(self, how: str) -> None:
        self.execute(how)
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _tell(self, event: str, lease: int, resource: int, data: str) -> None:
        told = {"now": time.time(), "event": event, "lease": lease, "resource": resource, "data": data}
        self.execute(TELL, told)
