"""The tables, and numbered changes to them. `sqlite_utils.Migrations` keeps the record of which were made.

`SCHEMA_VERSION` is the number of migrations, kept in the file's `user_version` too, where a command that finds its
schema current reads it without importing sqlite-utils.

Indexes follow the questions that a grant asks: each holds only the rows that can be an answer (what has room, what
is free, what still lives), so none of them grows with the leases that are over.
"""

import re
from typing import TYPE_CHECKING

from sqlite_utils import Migrations

from .statuses import one_of

if TYPE_CHECKING:
    from sqlite_utils.db import Database

migrations = Migrations("drydock")

_LEASE = "'pending', 'acquired', 'active', 'released', 'broken', 'destroyed'"
_RESOURCE = "'pending', 'active', 'released', 'broken', 'destroyed'"

FIRST_TABLES = f"""
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    config INTEGER NOT NULL,  -- grows with every change of what is offered
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE source (
    name TEXT NOT NULL PRIMARY KEY,
    data TEXT NOT NULL
) STRICT;

CREATE TABLE blueprint (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    source TEXT,
    seats INTEGER CHECK (seats > 0),
    most INTEGER CHECK (most >= 0),
    grace REAL NOT NULL CHECK (grace >= 0),
    pooled INTEGER NOT NULL CHECK (pooled IN (0, 1)),
    hooks TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),  -- the operator's switch
    listed INTEGER NOT NULL CHECK (listed IN (0, 1)),  -- 0: pruned, the pool file no longer has it
    live INTEGER NOT NULL CHECK (live >= 0),
    bounded_at REAL NOT NULL  -- since when seats and most are what they are; 0: always
) STRICT;

-- Apart from its blueprint: they may be as large as the pool, and counting `live` would write them each time.
CREATE TABLE settings (
    blueprint INTEGER PRIMARY KEY REFERENCES blueprint (id),
    data TEXT NOT NULL
) STRICT;

-- A shape is a set of attributes that many things of one blueprint share; what tells single things apart is a trait.
CREATE TABLE shape (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blueprint INTEGER NOT NULL REFERENCES blueprint (id),
    attributes TEXT NOT NULL,
    things INTEGER NOT NULL,
    UNIQUE (blueprint, attributes)
) STRICT;

CREATE TABLE binding (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blueprint INTEGER NOT NULL REFERENCES blueprint (id),
    shape INTEGER NOT NULL REFERENCES shape (id),
    name TEXT NOT NULL,
    slot_lock TEXT NOT NULL,
    lease_locks TEXT NOT NULL,
    attributes TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),  -- the operator's switch
    in_service INTEGER NOT NULL CHECK (in_service IN (0, 1)),  -- what its source says
    listed INTEGER NOT NULL CHECK (listed IN (0, 1)),  -- 0: its source no longer has it
    resource INTEGER,
    fence INTEGER NOT NULL,  -- the last fence of the last resource on it
    UNIQUE (blueprint, name)
) STRICT;
CREATE INDEX binding_free ON binding (shape, id)
    WHERE resource IS NULL AND enabled = 1 AND in_service = 1 AND listed = 1;
CREATE INDEX binding_slot_lock ON binding (slot_lock);
CREATE INDEX binding_resource ON binding (resource) WHERE resource IS NOT NULL;

CREATE TABLE trait (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    binding INTEGER NOT NULL REFERENCES binding (id),
    PRIMARY KEY (name, value, binding)
) STRICT, WITHOUT ROWID;
CREATE INDEX trait_binding ON trait (binding);

CREATE TABLE resource (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blueprint INTEGER NOT NULL REFERENCES blueprint (id),
    binding INTEGER,
    shape INTEGER NOT NULL REFERENCES shape (id),
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ({_RESOURCE})),
    attributes TEXT NOT NULL,
    slot_locks TEXT NOT NULL,
    lease_locks TEXT NOT NULL,
    seats INTEGER NOT NULL CHECK (seats > 0),
    used INTEGER NOT NULL CHECK (used >= 0),
    open INTEGER NOT NULL CHECK (open IN (0, 1)),  -- 0: what it stands on takes no new lease
    fence INTEGER NOT NULL,
    built_for INTEGER,
    reclaimed_for INTEGER,
    worker TEXT,  -- the process that runs a hook for it
    not_before REAL NOT NULL,  -- a hook that failed or yielded is not called again before
    created_at REAL NOT NULL,
    idle_since REAL NOT NULL
) STRICT;
CREATE INDEX resource_room ON resource (shape, used, idle_since, id)
    WHERE status = 'active' AND open = 1 AND used < seats;
CREATE INDEX resource_live ON resource (shape, id) WHERE status <> 'destroyed';
CREATE INDEX resource_moving ON resource (id) WHERE status IN ('pending', 'released', 'broken');
CREATE INDEX resource_binding ON resource (binding) WHERE status <> 'destroyed';
CREATE INDEX resource_closed ON resource (id) WHERE status = 'active' AND open = 0 AND used = 0;

CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    status TEXT NOT NULL CHECK (status IN ({_LEASE})),
    type TEXT NOT NULL,
    blueprints TEXT NOT NULL,
    owner TEXT NOT NULL,
    priority INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    resource INTEGER REFERENCES resource (id),
    slot_locks TEXT NOT NULL,
    fence INTEGER,
    until REAL,
    ttl REAL,
    process TEXT,  -- the process that it is bound to: it ends when that dies
    worker TEXT,
    not_before REAL NOT NULL,
    failures INTEGER NOT NULL,
    created_at REAL NOT NULL,
    granted_at REAL,
    ended_at REAL,
    reason TEXT,
    CHECK (resource IS NOT NULL OR status IN ('pending', 'broken', 'destroyed'))
) STRICT;
CREATE INDEX lease_unsettled ON lease (type, id) WHERE status IN ('pending', 'acquired', 'released', 'broken');
CREATE INDEX lease_live ON lease (resource) WHERE status <> 'destroyed';
CREATE INDEX lease_process ON lease (process) WHERE process IS NOT NULL AND status <> 'destroyed';

CREATE TABLE slot_lock (
    key TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    taken_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    lease INTEGER,
    resource INTEGER,
    blueprint TEXT,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX event_lease ON event (lease, id) WHERE lease IS NOT NULL;
CREATE INDEX event_resource ON event (resource, id) WHERE resource IS NOT NULL AND substr(event, 1, 9) = 'resource.';
"""


def _run(db: "Database", statements: str) -> None:
    # One statement at a time: executescript() would commit the transaction that the migration runs in.
    for statement in statements.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


@migrations()
def first_tables(db: "Database") -> None:
    _run(db, FIRST_TABLES)
    db.conn.execute(
        "INSERT INTO store (id, config, created_at) VALUES (1, 1, (julianday('now') - 2440587.5) * 86400.0)"
    )


# What a request in the queue and the end of a lease must know. The table is made anew without its reference to
# `resource`, which would make the database look through all leases ever whenever an old resource is forgotten.
_LEASE_TABLE = f"""
CREATE TABLE lease_new (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    status TEXT NOT NULL CHECK (status IN ({_LEASE})),
    type TEXT NOT NULL,
    blueprints TEXT NOT NULL,
    owner TEXT NOT NULL,
    priority INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    request INTEGER,  -- the first lease of those that are granted together; NULL: it is the only one
    turn REAL NOT NULL,  -- its place in the queue: the smallest is served first
    owed REAL,  -- since when (uptime) there is something that only its requester can look at
    resource INTEGER,
    slot_locks TEXT NOT NULL,
    fence INTEGER,
    until REAL,
    ttl REAL,
    deadline REAL,  -- the uptime at which its ttl is over
    boot TEXT,  -- of which start of the machine that is the uptime
    warned INTEGER NOT NULL,  -- 1: its coming end has been told
    process TEXT,  -- the process that it is bound to: it ends when that dies
    worker TEXT,
    not_before REAL NOT NULL,
    failures INTEGER NOT NULL,
    created_at REAL NOT NULL,
    granted_at REAL,
    ended_at REAL,
    reason TEXT,
    CHECK (resource IS NOT NULL OR status IN ('pending', 'broken', 'destroyed'))
) STRICT
"""
_LEASE_KEPT = (
    "id, status, type, blueprints, owner, priority, attributes, resource, slot_locks, fence, until, ttl, process, worker,"
    " not_before, failures, created_at, granted_at, ended_at, reason"
)
WAITING_AND_ENDING = f"""
{_LEASE_TABLE};
INSERT INTO lease_new ({_LEASE_KEPT}, turn, warned) SELECT {_LEASE_KEPT}, created_at, 0 FROM lease;
UPDATE sqlite_sequence SET seq = COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'lease'), seq) WHERE name = 'lease_new';
DROP TABLE lease;
ALTER TABLE lease_new RENAME TO lease;
CREATE INDEX lease_queue ON lease (type, turn, id) WHERE status = 'pending';
CREATE INDEX lease_moving ON lease (id) WHERE status IN ('acquired', 'released', 'broken');
CREATE INDEX lease_live ON lease (resource) WHERE status <> 'destroyed';
CREATE INDEX lease_process ON lease (process) WHERE process IS NOT NULL AND status <> 'destroyed';
CREATE INDEX lease_until ON lease (until) WHERE until IS NOT NULL AND status IN ('pending', 'acquired', 'active');
CREATE INDEX lease_deadline ON lease (boot, deadline) WHERE deadline IS NOT NULL AND status IN ('acquired', 'active');

ALTER TABLE blueprint ADD COLUMN cooldown REAL NOT NULL DEFAULT 0;
ALTER TABLE blueprint ADD COLUMN lifetime REAL;
ALTER TABLE blueprint ADD COLUMN ttl REAL;

ALTER TABLE resource ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE resource ADD COLUMN rests_until REAL;
ALTER TABLE resource ADD COLUMN until REAL;
ALTER TABLE resource ADD COLUMN ttl REAL;
ALTER TABLE resource ADD COLUMN ended_at REAL;
DROP INDEX resource_room;
CREATE INDEX resource_room ON resource (shape, used, idle_since, id)
    WHERE status = 'active' AND open = 1 AND used < seats AND rests_until IS NULL;
CREATE INDEX resource_resting ON resource (rests_until) WHERE rests_until IS NOT NULL;
CREATE INDEX resource_until ON resource (until) WHERE until IS NOT NULL AND status = 'active';
CREATE INDEX resource_ttl ON resource (idle_since + ttl) WHERE ttl IS NOT NULL AND used = 0 AND status = 'active';
"""


@migrations()
def waiting_and_ending(db: "Database") -> None:
    _run(db, WAITING_AND_ENDING)


# What a resource stands on is a lease of its own; and what is looked at now and then, to see whether it is still there.
STANDING_AND_LOOKING = """
ALTER TABLE lease ADD COLUMN carries INTEGER;
CREATE INDEX lease_carries ON lease (carries) WHERE carries IS NOT NULL;

ALTER TABLE blueprint ADD COLUMN per_lease TEXT NOT NULL DEFAULT '[]';
ALTER TABLE blueprint ADD COLUMN observe_every REAL;
ALTER TABLE blueprint ADD COLUMN observe_at REAL;
CREATE INDEX blueprint_observe ON blueprint (observe_at) WHERE observe_at IS NOT NULL;

ALTER TABLE resource ADD COLUMN observe_at REAL;
CREATE INDEX resource_observe ON resource (observe_at) WHERE observe_at IS NOT NULL AND status = 'active';

ALTER TABLE binding ADD COLUMN missing INTEGER NOT NULL DEFAULT 0;
DROP INDEX binding_free;
CREATE INDEX binding_free ON binding (shape, id)
    WHERE resource IS NULL AND enabled = 1 AND in_service = 1 AND listed = 1 AND missing = 0;
"""


@migrations()
def standing_and_looking(db: "Database") -> None:
    _run(db, STANDING_AND_LOOKING)


# What a holder has given up as broken is offered no more, whatever is applied before its last holder has gone.
GIVEN_UP = "ALTER TABLE resource ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0"


@migrations()
def given_up(db: "Database") -> None:
    _run(db, GIVEN_UP)


# The queue has a name of its own, since not every database finds it as easily as this one.
THE_QUEUE = "CREATE VIEW waiting AS SELECT * FROM lease WHERE status = 'pending'"


@migrations()
def the_queue(db: "Database") -> None:
    _run(db, THE_QUEUE)


# Each list of statuses is spelled out, in all that is worked out whenever a row is written; see `one_of`. The tables are
# made anew, since a CHECK cannot be changed.
@migrations()
def no_lists(db: "Database") -> None:
    _run(db, "DROP VIEW waiting")
    for table in ("resource", "lease"):
        made = "SELECT sql FROM sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type = 'index', rowid"
        definition, *indexes = (_spelled_out(sql) for (sql,) in db.conn.execute(made, [table]))
        made_anew = f"""
{re.sub(r"^CREATE TABLE [^ ]+", f"CREATE TABLE {table}_new", definition)};
INSERT INTO {table}_new SELECT * FROM {table};
UPDATE sqlite_sequence SET seq = COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), seq) WHERE name = '{table}_new';
DROP TABLE {table};
ALTER TABLE {table}_new RENAME TO {table}"""
        _run(db, ";\n".join([made_anew, *indexes]))
    _run(db, THE_QUEUE)


def _spelled_out(statement: str) -> str:
    return re.sub(r"status IN \(([^)]*)\)", lambda found: one_of(*re.findall(r"\w+", found[1])), statement)
