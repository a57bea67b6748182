"""`postgres-database`: a database of its own for each lease, made from a template and dropped afterwards.

    [blueprint.testdb]
    kind = "postgres-database"
    server = "postgresql://tester@10.0.0.7:5432/postgres"   # or "postgresql:///?service=tests"; no password here
    template = "app_template"  # what each lease finds; default: template1
    limit = 3

    $ drydock run --type database -- sh -c 'pytest --dsn "$DRYDOCK_ATTR_URL"'

Whoever leases one connects to the attribute `url` (or to `database` on `host` and `port`). The password stands in
`~/.pgpass`, or in the environment variable that the setting `password_from` names; holders need it as well. The
server's user must be allowed to make databases, and nobody may be connected to the template while one is made.

The databases are called `drydock_BLUEPRINT_0`, `..._1` and so on, and a comment on each says which lease it is for:
what has another comment, or none, is never dropped. Two stores on one server need two settings `prefix`. Where one
store alone uses a prefix, `alone = true` says so, and then it replaces what a lost store has left there.
Hooks hold a lock of their session: the server must be reached directly, not through a pooler of transactions.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from drydock.blueprint import (
    Attributes,
    Builder,
    ConfigError,
    LeaseInfo,
    Plan,
    Refused,
    ResourceInfo,
    Setting,
    check_name,
    check_text,
    fits,
    quoted,
    slot_lock,
)

# At the top, where the process that runs hooks pays for it once, and not with each of them.
try:
    import psycopg
    from psycopg import Connection, errors
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.sql import SQL, Identifier, Literal
except ImportError:
    DRIVER = False
else:
    DRIVER = True

MOST_DATABASES = 1000
#: PostgreSQL cuts off what is longer than 63 bytes, and a number must follow
LONGEST_PREFIX = 59
DEFAULT_PORT = 5432
#: how long somebody else may be connected to the template before that is a failure
TEMPLATE_SECONDS = 30.0
#: a database with this limit, to which nobody may connect, is one that we began to make; no comment is possible before
UNFINISHED = 1683
#: what PostgreSQL itself says of one that it was dropping when it was interrupted
INVALID = -2
#: where the URL says nothing else
CONNECTING = {"connect_timeout": "10", "keepalives_idle": "10", "application_name": "drydock"}

FIND = "SELECT datallowconn, datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
CONNECTED = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
MAY_MAKE = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"


class PostgresDatabase(Builder):
    """Databases PREFIX0, PREFIX1 ... on one server; the slot lock of one is `postgres-database(HOST:PORT/PREFIX0)`."""

    type = "database"
    summary = "a PostgreSQL database for each lease, made from a template"
    settings_schema = {
        "server": Setting(str, "its URL, such as postgresql://user@host:5432/postgres, without a password"),
        "template": Setting(str, "the database that each lease gets a copy of", "template1"),
        "prefix": Setting(str, "how the names of the databases begin; default: drydock_BLUEPRINT_", ""),
        "password_from": Setting(str, "the environment variable that holds the password; default: ~/.pgpass", ""),
        "alone": Setting(bool, "no other store uses this prefix: what is left there may be replaced", False),
    }

    def check(self) -> None:
        parse(self.settings["server"])
        check_text(self.settings["template"], "template", 63)
        self._prefix()
        self._conninfo()

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        server, prefix = parse(self.settings["server"]), self._prefix()
        for number in range(MOST_DATABASES):
            name = f"{prefix}{number}"
            attributes = {**server.attributes(name), "template": self.settings["template"]}
            if fits(attributes, wanted):
                yield Plan(name, (slot_lock("postgres-database", f"{server.place}/{name}"),), attributes)

    def activate(self, resource: ResourceInfo) -> None:
        """Nothing is made before there is a lease, but a server that could not make it is found out here."""
        with self._connected(resource) as connection:
            template = self.settings["template"]
            if connection.execute(FIND, [template]).fetchone() is None:
                raise ConfigError(f"the server has no database {quoted(template)} to copy")
            if connection.execute(MAY_MAKE).fetchone() != (True,):
                raise Refused("the server's user may not make databases; allow it: ALTER ROLE ... CREATEDB")

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        name, mark = resource.name, self._mark(resource, lease)
        with self._connected(resource) as connection:
            found = connection.execute(FIND, [name]).fetchone()
            if found is not None:
                self._refuse_what_is_not_ours(connection, name, mark, found)
                drop(connection, name)
            make(connection, name, self.settings["template"], mark)

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        with self._connected(resource) as connection:
            found = connection.execute(FIND, [resource.name]).fetchone()
            # Another one than ours is why this lease could not begin. It stays.
            if found is not None and (is_unfinished(found) or found[2] == self._mark(resource, lease)):
                drop(connection, resource.name)

    def _refuse_what_is_not_ours(self, connection: "Connection[Any]", name: str, mark: str, found: Any) -> None:
        """Only what an earlier try for this very lease has made may go, and nobody has been told of that one yet."""
        _, _, comment = found
        if is_unfinished(found):
            return
        if comment is None or not comment.startswith("drydock: "):
            raise Refused(f"there is a database {quoted(name)} that Drydock did not make")
        if self.settings["alone"]:
            return
        if comment != mark or connection.execute(CONNECTED, [name]).fetchone() is not None:
            raise Refused(
                f"there is a database {quoted(name)} already ({quoted(comment)}): another store that uses this server"
                ' needs another "prefix"; if nobody uses it any more, drop it'
            )

    def _mark(self, resource: ResourceInfo, lease: LeaseInfo) -> str:
        about = f"lease {lease.id} of {lease.owner}, fence {lease.fence}"
        return f"drydock: for {about}, resource {resource.id} of blueprint {self.name}"

    def _prefix(self) -> str:
        prefix = self.settings["prefix"] or f"drydock_{re.sub('[^a-z0-9_]', '_', self.name.lower())}_"
        if not re.fullmatch("[a-z_][a-z0-9_]*", prefix, re.ASCII) or len(prefix) > LONGEST_PREFIX:
            raise ConfigError(
                f'"prefix" must be at most {LONGEST_PREFIX} of a-z, 0-9 and "_", no digit first, not {quoted(prefix)}'
            )
        return str(prefix)

    # ---- the server

    @contextmanager
    def _connected(self, resource: ResourceInfo) -> Iterator["Connection[Any]"]:
        """A connection that no other hook about this resource has at the same time, however late its end is noticed."""
        check_name(resource.name, "database")
        self._check_place(resource)
        conninfo = self._conninfo()
        password = os.environ.get(self.settings["password_from"]) if self.settings["password_from"] else None
        with psycopg.connect(**conninfo, password=password, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '60s'; SET statement_timeout = '9min'")
            # A hook that was killed has left the server at work on what it asked for last.
            connection.execute("SELECT pg_advisory_lock(%s)", [lock_number(resource.name)])
            yield connection

    def _conninfo(self) -> dict[str, Any]:
        if not DRIVER:
            raise ConfigError(
                "a driver for PostgreSQL is not installed; install it with: pip install 'drydock-allocator[postgres]'"
            )
        try:
            given = conninfo_to_dict(self.settings["server"])
        except psycopg.ProgrammingError:  # its words may repeat what should not be shown
            raise ConfigError('"server" is not a URL that PostgreSQL understands') from None
        return {**CONNECTING, "dbname": "postgres", **given}

    def _check_place(self, resource: ResourceInfo) -> None:
        place, url = parse(self.settings["server"]).place, resource.attributes.get("url")
        if isinstance(url, str) and parse(url).place != place:
            raise ConfigError(
                f"{quoted(resource.name)} belongs to the server {parse(url).place}, and the blueprint names {place} now;"
                " name the old one again until this resource is gone"
            )


class Server(NamedTuple):
    """What a URL says of a server."""

    user: str
    host: str
    port: int
    service: str
    before: str  #: of its URL, before the database
    after: str

    @property
    def place(self) -> str:
        """What makes it one server."""
        return f"service={self.service}" if self.service else f"{self.host.lower() or 'local'}:{self.port}"

    def attributes(self, database: str) -> dict[str, Any]:
        place = {} if self.service else {"port": self.port, **({"host": self.host} if self.host else {})}
        return {"url": f"{self.before}/{database}{self.after}", "database": database, **place}


def parse(url: str) -> Server:
    """Raises `ConfigError` for one that cannot be meant, and never shows it: what is wrong may be part of a password."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = int(query.get("port", parts.port or DEFAULT_PORT))
    except ValueError:
        raise ConfigError('"server" is not a URL such as postgresql://user@host:5432/postgres') from None
    if parts.scheme not in ("postgresql", "postgres") or not url.startswith(f"{parts.scheme}://") or parts.fragment:
        raise ConfigError('"server" is not a URL such as postgresql://user@host:5432/postgres')
    user, _, host_and_port = parts.netloc.rpartition("@")
    if ":" in user or "@" in user or any("password" in name for name in query) or "@" in parts.path:
        raise ConfigError('"server" may not hold a password; put it into ~/.pgpass or see "password_from"')
    if "dbname" in query:
        raise ConfigError('"server" names its database before the "?", not as "dbname"')
    host = query.get("host", parts.hostname or "")
    if "," in host or "," in host_and_port:
        raise ConfigError('"server" must name one host')
    after = f"?{parts.query}" if parts.query else ""
    return Server(user, host, port, query.get("service", ""), f"{parts.scheme}://{parts.netloc}", after)


def make(connection: "Connection[Any]", name: str, template: str, mark: str) -> None:
    """Make it, say whose it is, and only then let anybody in."""
    database = Identifier(name)
    create = SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false CONNECTION LIMIT {}")
    deadline = time.monotonic() + TEMPLATE_SECONDS
    while True:
        try:
            connection.execute(create.format(database, Identifier(template), Literal(UNFINISHED)))
            break
        except errors.ObjectInUse:  # after it has waited for five seconds by itself
            if time.monotonic() > deadline:
                raise
    connection.execute(SQL("COMMENT ON DATABASE {} IS {}").format(database, Literal(mark)))
    connection.execute(SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true CONNECTION LIMIT -1").format(database))


def drop(connection: "Connection[Any]", name: str) -> None:
    """Drop it, whoever is connected to it."""
    database = Identifier(name)
    if connection.execute(FIND + " AND datconnlimit <> %s", [name, INVALID]).fetchone() is not None:
        connection.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false ALLOW_CONNECTIONS false").format(database))
    # DROP does this as well, but then it sleeps for a tenth of a second before it looks again.
    while connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({CONNECTED}) AS others", [name]).fetchone():  # noqa: S608
        time.sleep(0.001)
    force = SQL("WITH (FORCE)" if connection.info.server_version >= 13_00_00 else "")
    connection.execute(SQL("DROP DATABASE IF EXISTS {} {}").format(database, force))


def is_unfinished(found: Any) -> bool:
    """Whether this is one that we began to make, and nobody is at it any more."""
    allows, limit, comment = found
    return not allows and limit == UNFINISHED and comment is None


def lock_number(name: str) -> int:
    """The number of the server's lock for the database `name`."""
    return int.from_bytes(hashlib.blake2b(f"drydock:{name}".encode(), digest_size=8).digest(), signed=True)
