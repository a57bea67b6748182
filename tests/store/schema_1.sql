BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'drydock','first_tables','2026-09-21 13:33:20.000000+00:00');
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
INSERT INTO "binding" VALUES(1,1,1,'h1','host(h1)','[]','{}',1,1,1,1,0);
INSERT INTO "binding" VALUES(2,1,1,'h2','host(h2)','[]','{}',1,1,1,2,0);
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
INSERT INTO "blueprint" VALUES(1,'lab','host-pool','host',NULL,1,2,0.0,1,'',1,1,2,0.0);
INSERT INTO "blueprint" VALUES(2,'tmp','scratch-dir','scratch-dir',NULL,1,1,180.0,0,'activate activate_lease destroy destroy_lease',1,1,1,0.0);
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    lease INTEGER,
    resource INTEGER,
    blueprint TEXT,
    data TEXT NOT NULL
) STRICT;
INSERT INTO "event" VALUES(1,1790000003.0,'blueprint.added',NULL,NULL,'lab','{"names": ["lab"], "count": 1}');
INSERT INTO "event" VALUES(2,1790000004.0,'binding.added',NULL,NULL,'lab','{"names": ["h1", "h2"], "count": 2}');
INSERT INTO "event" VALUES(3,1790000005.0,'blueprint.added',NULL,NULL,'tmp','{"names": ["tmp"], "count": 1}');
INSERT INTO "event" VALUES(4,1790000009.0,'resource.activated',1,1,'lab','{"name": "h1"}');
INSERT INTO "event" VALUES(5,1790000012.0,'lease.activated',1,1,'lab','{"fence": 1}');
INSERT INTO "event" VALUES(6,1790000014.0,'lease.released',1,1,'lab','{"reason": "done"}');
INSERT INTO "event" VALUES(7,1790000019.0,'lease.activated',2,1,'lab','{"fence": 2}');
INSERT INTO "event" VALUES(8,1790000023.0,'resource.activated',3,2,'lab','{"name": "h2"}');
INSERT INTO "event" VALUES(9,1790000026.0,'lease.activated',3,2,'lab','{"fence": 1}');
INSERT INTO "event" VALUES(10,1790000028.0,'lease.requested',4,NULL,NULL,'{}');
INSERT INTO "event" VALUES(11,1790000031.0,'resource.building',4,3,'tmp','{"name": "scratch-0"}');
INSERT INTO "event" VALUES(12,1790000033.0,'resource.activated',NULL,3,'tmp','{}');
INSERT INTO "event" VALUES(13,1790000036.0,'lease.acquired',4,3,'tmp','{"fence": 1}');
INSERT INTO "event" VALUES(14,1790000037.0,'lease.activated',4,3,'tmp','{"fence": 1}');
INSERT INTO "event" VALUES(15,1790000040.0,'lease.requested',5,NULL,NULL,'{}');
INSERT INTO "event" VALUES(16,1790000043.0,'lease.requested',6,NULL,NULL,'{}');
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    status TEXT NOT NULL CHECK (status IN ('pending', 'acquired', 'active', 'released', 'broken', 'destroyed')),
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
INSERT INTO "lease" VALUES(1,'destroyed','host','[]','old',0,'{}',1,'["seat(resource:1).slot(0)"]',1,NULL,NULL,NULL,NULL,0.0,0,1790000006.0,1790000011.0,1790000013.0,'done');
INSERT INTO "lease" VALUES(2,'active','host','[]','old',0,'{}',1,'["seat(resource:1).slot(0)"]',2,NULL,NULL,NULL,NULL,0.0,0,1790000016.0,1790000018.0,NULL,NULL);
INSERT INTO "lease" VALUES(3,'active','host','[]','old',0,'{}',2,'["seat(resource:2).slot(0)"]',1,NULL,NULL,NULL,NULL,0.0,0,1790000020.0,1790000025.0,NULL,NULL);
INSERT INTO "lease" VALUES(4,'active','scratch-dir','[]','old',0,'{}',3,'["seat(resource:3).slot(0)"]',1,NULL,NULL,NULL,NULL,0.0,0,1790000027.0,1790000035.0,NULL,NULL);
INSERT INTO "lease" VALUES(5,'pending','host','[]','first',0,'{}',NULL,'[]',NULL,NULL,NULL,'7b0321412747',NULL,0.0,0,1790000038.0,NULL,NULL,NULL);
INSERT INTO "lease" VALUES(6,'pending','host','[]','second',0,'{}',NULL,'[]',NULL,NULL,NULL,'546a9fe6c91d',NULL,0.0,0,1790000041.0,NULL,NULL,NULL);
CREATE TABLE resource (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blueprint INTEGER NOT NULL REFERENCES blueprint (id),
    binding INTEGER,
    shape INTEGER NOT NULL REFERENCES shape (id),
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'active', 'released', 'broken', 'destroyed')),
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
INSERT INTO "resource" VALUES(1,1,1,1,'h1','host','active','{}','["host(h1)"]','[]',1,1,1,2,1,NULL,NULL,0.0,1790000007.0,1790000015.0);
INSERT INTO "resource" VALUES(2,1,2,1,'h2','host','active','{}','["host(h2)"]','[]',1,1,1,1,3,NULL,NULL,0.0,1790000021.0,1790000021.0);
INSERT INTO "resource" VALUES(3,2,NULL,2,'scratch-0','scratch-dir','active','{"path":"/srv/scratch/scratch-0"}','["scratch-dir(/srv/scratch/scratch-0)"]','[]',1,1,1,1,4,NULL,NULL,0.0,1790000029.0,1790000032.0);
CREATE TABLE settings (
    blueprint INTEGER PRIMARY KEY REFERENCES blueprint (id),
    data TEXT NOT NULL
) STRICT;
INSERT INTO "settings" VALUES(1,'{"hosts":["h1","h2"]}');
INSERT INTO "settings" VALUES(2,'{"root":"/srv/scratch"}');
CREATE TABLE shape (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blueprint INTEGER NOT NULL REFERENCES blueprint (id),
    attributes TEXT NOT NULL,
    things INTEGER NOT NULL,
    UNIQUE (blueprint, attributes)
) STRICT;
INSERT INTO "shape" VALUES(1,1,'{}',2);
INSERT INTO "shape" VALUES(2,2,'{}',0);
CREATE TABLE slot_lock (
    key TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    taken_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "slot_lock" VALUES('host(h1)','resource:1',1790000008.0);
INSERT INTO "slot_lock" VALUES('host(h2)','resource:2',1790000022.0);
INSERT INTO "slot_lock" VALUES('scratch-dir(/srv/scratch/scratch-0)','resource:3',1790000030.0);
INSERT INTO "slot_lock" VALUES('seat(resource:1).slot(0)','lease:2',1790000017.0);
INSERT INTO "slot_lock" VALUES('seat(resource:2).slot(0)','lease:3',1790000024.0);
INSERT INTO "slot_lock" VALUES('seat(resource:3).slot(0)','lease:4',1790000034.0);
CREATE TABLE source (
    name TEXT NOT NULL PRIMARY KEY,
    data TEXT NOT NULL
) STRICT;
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    config INTEGER NOT NULL,  -- grows with every change of what is offered
    created_at REAL NOT NULL
) STRICT;
INSERT INTO "store" VALUES(1,2,1790000001.0);
CREATE TABLE trait (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    binding INTEGER NOT NULL REFERENCES binding (id),
    PRIMARY KEY (name, value, binding)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX binding_free ON binding (shape, id)
    WHERE resource IS NULL AND enabled = 1 AND in_service = 1 AND listed = 1;
CREATE INDEX binding_slot_lock ON binding (slot_lock);
CREATE INDEX binding_resource ON binding (resource) WHERE resource IS NOT NULL;
CREATE INDEX trait_binding ON trait (binding);
CREATE INDEX resource_room ON resource (shape, used, idle_since, id)
    WHERE status = 'active' AND open = 1 AND used < seats;
CREATE INDEX resource_live ON resource (shape, id) WHERE status <> 'destroyed';
CREATE INDEX resource_moving ON resource (id) WHERE status IN ('pending', 'released', 'broken');
CREATE INDEX resource_binding ON resource (binding) WHERE status <> 'destroyed';
CREATE INDEX resource_closed ON resource (id) WHERE status = 'active' AND open = 0 AND used = 0;
CREATE INDEX lease_unsettled ON lease (type, id) WHERE status IN ('pending', 'acquired', 'released', 'broken');
CREATE INDEX lease_live ON lease (resource) WHERE status <> 'destroyed';
CREATE INDEX lease_process ON lease (process) WHERE process IS NOT NULL AND status <> 'destroyed';
CREATE INDEX event_lease ON event (lease, id) WHERE lease IS NOT NULL;
CREATE INDEX event_resource ON event (resource, id) WHERE resource IS NOT NULL AND substr(event, 1, 9) = 'resource.';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('blueprint',2);
INSERT INTO "sqlite_sequence" VALUES('shape',2);
INSERT INTO "sqlite_sequence" VALUES('binding',2);
INSERT INTO "sqlite_sequence" VALUES('event',16);
INSERT INTO "sqlite_sequence" VALUES('lease',6);
INSERT INTO "sqlite_sequence" VALUES('resource',3);
COMMIT;