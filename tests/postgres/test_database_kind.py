"""The kind `postgres-database` on a real server: a fresh copy for each lease, and nothing dropped that is not ours."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from conftest import Cli, apply
from drydock_blueprints.postgres_database import UNFINISHED, PostgresDatabase
from psycopg.sql import SQL, Identifier, Literal

import drydock
from drydock.blueprint import LeaseInfo, ResourceInfo
from drydock.engine import Engine
from drydock.errors import BlueprintError, ConfigError, NeverPossible, NothingFree, Refused
from drydock.model import Demand, Lease
from drydock.testing.children import Child, run_together
from drydock.testing.postgres import LOOPBACK, PostgresServer, Server

VARIABLE = "SECRET_OF_THE_TESTS"
#: sessions that are making a database
MAKING = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'CREATE DATABASE%'"
WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid <> 0"


class Place:
    """The server as an operator sees it: `server` is what a pool file may say of it."""

    def __init__(self, server: Server) -> None:
        full = server.url(host=LOOPBACK) if isinstance(server, PostgresServer) else server.url()
        parts = urlsplit(full)
        user, at, where = parts.netloc.rpartition("@")
        user, _, self.password = user.partition(":")
        query = f"?{parts.query}" if parts.query else ""
        self.server = f"{parts.scheme}://{user}{at}{where}{parts.path}{query}"
        self.prefix = f"dt_{secrets.token_hex(4)}_"
        self.template = f"{self.prefix}template"
        self.connection = psycopg.connect(full, autocommit=True)

    def execute(self, statement: str, *names: str) -> None:
        self.connection.execute(SQL(statement).format(*map(Identifier, names)))

    def ask(self, question: str) -> list[Any]:
        return [row[0] for row in self.connection.execute(question.encode())]

    def databases(self) -> set[str]:
        """The last part of their names."""
        names = self.ask("SELECT datname FROM pg_database")
        return {name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)} - {"template"}

    def connect(self, database: str) -> "psycopg.Connection[Any]":
        return psycopg.connect(self.server, dbname=database, password=self.password or None, autocommit=True)

    def make(self, number: int, comment: str | None = None, more: str = "") -> None:
        """A database that somebody else has made."""
        self.execute("CREATE DATABASE {} TEMPLATE template0 " + more, f"{self.prefix}{number}")
        self.connection.execute(
            SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(f"{self.prefix}{number}"), Literal(comment))
        )

    def wait_for(self, question: str) -> None:
        deadline = time.monotonic() + 60
        while not self.ask(question):
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def settings(self, **changed: Any) -> dict[str, Any]:
        given = {"server": self.server, "template": self.template, "prefix": self.prefix, "password_from": VARIABLE}
        return {**given, **changed}

    def pool(self, **changed: Any) -> dict[str, Any]:
        return {"blueprint": {"db": {"kind": "postgres-database", "limit": 2, **self.settings(**changed)}}}

    def kind(self, **changed: Any) -> PostgresDatabase:
        return PostgresDatabase("db", self.settings(**{"alone": False, **changed}))

    def close(self) -> None:
        for number in {*self.databases(), "template"}:
            self.execute("ALTER DATABASE {} IS_TEMPLATE false", f"{self.prefix}{number}")
            self.execute("DROP DATABASE {} WITH (FORCE)", f"{self.prefix}{number}")
        self.connection.close()


@pytest.fixture
def place(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(postgres)
    monkeypatch.setenv(VARIABLE, place.password)
    place.execute("CREATE DATABASE {} TEMPLATE template0", place.template)
    with place.connect(place.template) as connection:
        connection.execute("CREATE TABLE pet AS SELECT 'cat' AS name")
    yield place
    place.close()


@pytest.fixture
def databases(engine: Engine, place: Place) -> Engine:
    apply(engine, place.pool())
    return engine


def lease(engine: Engine, **wanted: Any) -> Lease:
    return engine.lease(Demand("database", (), wanted), owner="t", wait_seconds=0)[0]


def attributes(held: Lease) -> dict[str, Any]:
    assert held.resource is not None
    return dict(held.resource.attributes)


def first(kind: PostgresDatabase) -> ResourceInfo:
    plan = next(iter(kind.plans({})))
    return ResourceInfo(1, plan.name, "database", plan.attributes)


def pets(connection: "psycopg.Connection[Any]") -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pet")]


LEASE = LeaseInfo(7, "t@here", {}, 3)


# ---- a lease


def test_each_lease_has_a_copy_of_the_template_of_its_own_that_goes_with_it(databases: Engine, place: Place) -> None:
    one, two = lease(databases), lease(databases)
    assert {attributes(held)["database"] for held in (one, two)} == {f"{place.prefix}0", f"{place.prefix}1"}
    with pytest.raises(NothingFree):
        lease(databases)
    with contextlib.closing(psycopg.connect(attributes(one)["url"], password=place.password or None)) as connection:
        connection.execute("INSERT INTO pet VALUES ('dog')")
        connection.commit()
    with contextlib.closing(place.connect(attributes(two)["database"])) as connection:
        assert pets(connection) == ["cat"]
    databases.release(one.id)
    assert place.databases() == {attributes(two)["database"].removeprefix(place.prefix)}
    again = lease(databases)
    assert attributes(again) == attributes(one)
    with contextlib.closing(place.connect(attributes(again)["database"])) as connection:
        assert pets(connection) == ["cat"]
    for held in (two, again):
        databases.release(held.id)
    assert place.databases() == set()


def test_whoever_is_still_connected_is_thrown_out(databases: Engine, place: Place) -> None:
    held = lease(databases)
    with contextlib.closing(place.connect(attributes(held)["database"])) as stays:
        databases.release(held.id)
        with pytest.raises(psycopg.OperationalError):
            stays.execute("SELECT 1")
    assert place.databases() == set()


def test_what_its_holder_declared_a_template_goes_all_the_same(databases: Engine, place: Place) -> None:
    held = lease(databases)
    place.execute("ALTER DATABASE {} IS_TEMPLATE true", attributes(held)["database"])
    databases.release(held.id)
    assert place.databases() == set()


def test_a_lease_may_ask_for_what_the_databases_are(databases: Engine, place: Place) -> None:
    assert attributes(lease(databases, template=place.template))["template"] == place.template
    for wanted in ({"template": "other"}, {"size": 1}, {"database": "postgres"}, {"url": ["x"]}):
        with pytest.raises(NeverPossible):
            lease(databases, **wanted)


def test_a_template_that_is_in_use_is_waited_for(place: Place) -> None:
    with contextlib.closing(place.connect(place.template)) as in_use:
        kind, got = place.kind(), threading.Event()

        def activate() -> None:
            kind.activate_lease(first(kind), LEASE)
            got.set()

        making = threading.Thread(target=activate)
        making.start()
        place.wait_for(MAKING)
        assert not got.is_set()
        assert pets(in_use) == ["cat"]
    making.join(60)
    assert got.is_set()
    assert place.databases() == {"0"}


def test_a_server_that_cannot_make_it_is_found_out_when_the_resource_is_built(engine: Engine, place: Place) -> None:
    """So the request may go on to another blueprint."""
    apply(engine, place.pool(template="nowhere"))
    with pytest.raises(BlueprintError, match=r'failed in activate: .*no database "nowhere" to copy'):
        lease(engine)
    assert engine.store.leases.live() == []


HOLDER = """
import drydock, psycopg
store, number, password = sys.argv[1:]
with drydock.connect(store) as dock:
    say("ready"); hear()
    for _ in range(int(number)):
        with dock.lease("database") as lease:
            database = lease.resource.attributes["url"]
            with psycopg.connect(database, password=password or None, autocommit=True) as connection:
                connection.execute("CREATE TABLE mine (pid int)")
                connection.execute("INSERT INTO mine VALUES (%s)", [os.getpid()])
                assert connection.execute("SELECT pid FROM mine").fetchall() == [(os.getpid(),)]
    say("done")
"""


def test_many_processes_never_have_one_at_once_and_leave_none(store_address: str, place: Place) -> None:
    with drydock.connect(store_address) as dock:
        dock.apply(place.pool())
    children = [Child(HOLDER, store_address, 3, place.password) for _ in range(4)]
    assert run_together(children) == [["done"]] * 4
    assert place.databases() == set()


# ---- not ours


@pytest.mark.parametrize("comment", [None, "precious", "drydock: for lease 7 of somebody else"])
def test_a_database_that_is_not_this_leases_is_refused_and_stays(
    databases: Engine, place: Place, comment: str | None
) -> None:
    """Also one that another store has made under the same name; cleaning up after the refusal does not touch it."""
    place.make(0, comment)
    with pytest.raises(BlueprintError, match=f"there is a database .{place.prefix}0."):
        lease(databases)
    assert databases.store.leases.live() == []
    assert place.databases() == {"0"}


def test_where_a_store_is_alone_what_a_lost_one_left_is_replaced(place: Place) -> None:
    kind, lost = place.kind(alone=True), LEASE._replace(id=6)
    kind.activate_lease(first(kind), lost)
    with contextlib.closing(place.connect(f"{place.prefix}0")) as connection:
        connection.execute("INSERT INTO pet VALUES ('dog')")
    with pytest.raises(Refused, match="another store"):
        place.kind().activate_lease(first(kind), LEASE)
    kind.activate_lease(first(kind), LEASE)
    with contextlib.closing(place.connect(f"{place.prefix}0")) as connection:
        assert pets(connection) == ["cat"]
    place.make(1)
    second = next(iter(kind.plans({"database": f"{place.prefix}1"})))
    with pytest.raises(Refused, match="did not make"):
        kind.activate_lease(ResourceInfo(2, second.name, "database", second.attributes), LEASE)


def test_one_that_somebody_uses_is_refused_even_if_it_looks_like_this_leases(place: Place) -> None:
    """Two new stores both begin with lease 1."""
    kind = place.kind()
    kind.activate_lease(first(kind), LEASE)
    with contextlib.closing(place.connect(f"{place.prefix}0")) as connection:
        with pytest.raises(Refused, match="another store"):
            kind.activate_lease(first(kind), LEASE)
        assert pets(connection) == ["cat"]


def test_a_changed_server_is_told_and_nothing_is_touched_there(place: Place) -> None:
    kind = place.kind()
    kind.activate_lease(first(kind), LEASE)
    elsewhere = first(kind)._replace(attributes={"url": "postgresql://tester@elsewhere:6000/x"})
    with pytest.raises(ConfigError, match="belongs to the server elsewhere:6000"):
        kind.destroy_lease(elsewhere, LEASE)
    assert place.databases() == {"0"}


@pytest.mark.parametrize("name", ['x"; DROP DATABASE postgres; --', "../x", "", "a\0b", "-x", "x y"])
@pytest.mark.parametrize("hook", ["activate_lease", "destroy_lease"])
def test_a_poisoned_name_reaches_no_statement(place: Place, hook: str, name: str) -> None:
    kind = place.kind(server="postgresql://nobody@127.0.0.1:1/postgres")
    with pytest.raises(ConfigError, match="name"):
        getattr(kind, hook)(ResourceInfo(1, name, "database", {}), LEASE)


# ---- crashes


def test_every_hook_may_run_twice(place: Place) -> None:
    kind = place.kind()
    resource = first(kind)
    kind.destroy_lease(resource, LEASE)
    for _ in range(2):
        kind.activate(resource)
    for _ in range(2):
        kind.activate_lease(resource, LEASE)
        with contextlib.closing(place.connect(resource.name)) as connection:
            assert pets(connection) == ["cat"]
            connection.execute("INSERT INTO pet VALUES ('dog')")
    for _ in range(2):
        kind.destroy_lease(resource, LEASE)
        assert place.databases() == set()


@pytest.mark.parametrize("hook", ["activate_lease", "destroy_lease"])
def test_one_that_was_half_made_when_its_maker_died_is_not_kept(place: Place, hook: str) -> None:
    """There is no comment on it yet that could say whose it is, but nobody can have used it either."""
    kind = place.kind()
    place.make(0, None, f"ALLOW_CONNECTIONS false CONNECTION LIMIT {UNFINISHED}")
    getattr(kind, hook)(first(kind), LEASE)
    assert place.databases() == ({"0"} if hook == "activate_lease" else set())
    if hook == "activate_lease":
        with contextlib.closing(place.connect(f"{place.prefix}0")) as connection:
            assert pets(connection) == ["cat"]


MAKER = """
from drydock_blueprints.postgres_database import PostgresDatabase
from drydock.blueprint import LeaseInfo, ResourceInfo
kind = PostgresDatabase("db", eval(sys.argv[1]))
plan = next(iter(kind.plans({})))
kind.activate_lease(ResourceInfo(1, plan.name, "database", plan.attributes), LeaseInfo(7, "t@here", {}, 3))
"""


def test_the_server_going_on_for_a_dead_hook_is_waited_for(place: Place) -> None:
    """It makes what it was asked for last, also when nobody waits for it any more: who cleans up must not be too early."""
    kind = place.kind()
    with Child(MAKER, place.settings(alone=False)) as maker, contextlib.closing(place.connect(place.template)):
        place.wait_for(MAKING)
        maker.kill()
        cleaning = threading.Thread(target=kind.destroy_lease, args=(first(kind), LEASE))
        cleaning.start()
        place.wait_for(WAITING)
    cleaning.join(60)
    assert not place.ask(MAKING)
    assert place.databases() == set()


def test_a_command_that_was_killed_while_it_made_one_leaves_nothing(place: Place, cli: Cli, tmp_path: Any) -> None:
    """The next one takes it up, and what the first had asked the server for is not left over."""
    pool = tmp_path / "pool.toml"
    lines = [f"{name} = {value!r}" for name, value in place.settings().items()]
    pool.write_text("\n".join(["[blueprint.db]", 'kind = "postgres-database"', "limit = 1", *lines]))
    assert cli("apply", str(pool)).returncode == 0
    with contextlib.closing(place.connect(place.template)):
        command = cli.start("lease", "--type", "database", "--ttl", "1h")
        place.wait_for(MAKING)
        command.kill()
        command.communicate()
    held = cli("lease", "--type", "database", "--wait", "60s", "--json")
    assert held.returncode == 0, held.stderr
    assert place.databases() == {"0"}
    assert cli("release", str(held.objects[0]["id"])).returncode == 0
    assert place.databases() == set()
    assert [found["id"] for found in cli("leases", "--json").objects] == []


# ---- what a pool file may say


def test_no_password_is_kept_or_shown(place: Place, cli: Cli, tmp_path: Any) -> None:
    pool = tmp_path / "pool.toml"
    lines = [f"{name} = {value!r}" for name, value in place.settings().items()]
    pool.write_text("\n".join(["[blueprint.db]", 'kind = "postgres-database"', *lines]))
    said = [cli("apply", str(pool), "--json"), cli("lease", "--type", "database", "--json")]
    said += [cli(*verb, "--json") for verb in (["resources"], ["blueprints"], ["log"], ["show", "resource:1"])]
    wrong = cli("release", "1", **{VARIABLE: "wrong-" + place.password})
    said += [wrong, cli("log", "--json"), cli("release", "1")]
    assert all(done.returncode == 0 for done in said), [done.stderr for done in said]
    assert place.password
    assert not [done for done in said if place.password in done.stdout + done.stderr]


@pytest.mark.parametrize(
    "server",
    [
        "postgresql://me:SECRET@host/postgres",
        "postgresql://me:SEC@RET@host/postgres",
        "postgresql://me:SEC/RET@host/postgres",
        "postgresql://me:SEC?RET@host/postgres",
        "postgresql://me:SEC#RET@host/postgres",
        "postgresql://host/postgres?password=SECRET",
        "postgresql://host/postgres?user=me&sslpassword=SECRET",
        "postgresql://me@host/postgres?dbname=SECRET",
        "host=h password=SECRET",
        "mysql://me@SECRET/x",
        "postgresql:/SECRET",
        "postgresql://h1,h2/postgres",
        "postgresql://h1:1,h2:2/postgres",
        "postgresql://host:99x/postgres",
        "postgresql://host/postgres?nonsense=SECRET",
        "",
    ],
)
def test_a_server_that_cannot_be_meant_is_refused_and_not_shown(engine: Engine, server: str) -> None:
    with pytest.raises(ConfigError, match='"server"') as refused:
        apply(engine, {"blueprint": {"db": {"kind": "postgres-database", "server": server}}})
    assert not any(part in str(refused.value) for part in ("SEC", "RET"))


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("db", {"prefix": "Big"}, '"prefix" must be'),
        ("db", {"prefix": 'x"; DROP'}, '"prefix" must be'),
        ("db", {"prefix": "x" * 60}, '"prefix" must be'),
        ("b" * 60, {}, '"prefix" must be'),
        ("db", {"template": ""}, "template may not be empty"),
        ("db", {"template": "a\nb"}, "control character"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    engine: Engine, name: str, settings: dict[str, Any], sentence: str
) -> None:
    pool = {"kind": "postgres-database", "server": "postgresql://host/postgres", **settings}
    with pytest.raises(ConfigError, match=sentence):
        apply(engine, {"blueprint": {name: pool}})


@pytest.mark.parametrize(
    ("server", "key", "given"),
    [
        ("postgresql://me@DB.example:6000/postgres", "db.example:6000",
         {"url": "postgresql://me@DB.example:6000/drydock_my_app_0", "host": "db.example", "port": 6000}),
        ("postgres://[::1]/x?sslmode=require", "::1:5432",
         {"url": "postgres://[::1]/drydock_my_app_0?sslmode=require", "host": "::1", "port": 5432}),
        ("postgresql:///?host=/run/pg&port=6000", "/run/pg:6000",
         {"url": "postgresql:///drydock_my_app_0?host=/run/pg&port=6000", "host": "/run/pg", "port": 6000}),
        ("postgresql:///", "local:5432", {"url": "postgresql:///drydock_my_app_0", "port": 5432}),
        ("postgresql:///?service=tests", "service=tests", {"url": "postgresql:///drydock_my_app_0?service=tests"}),
    ],
)  # fmt: skip
def test_a_server_may_be_named_in_many_ways(server: str, key: str, given: dict[str, Any]) -> None:
    settings = {"server": server, "template": "template1", "prefix": "", "password_from": "", "alone": False}
    kind = PostgresDatabase("My.app", settings)
    kind.check()
    plan = next(iter(kind.plans({})))
    assert plan.slot_locks[0].key == f"postgres-database({key}/drydock_my_app_0)"
    assert plan.attributes == {**given, "database": "drydock_my_app_0", "template": "template1"}


WITHOUT_DRIVER = """
sys.modules["psycopg"] = None
import drydock
from drydock.errors import ConfigError
with drydock.connect(sys.argv[1]) as dock:
    try:
        dock.apply(eval(sys.argv[2]))
    except ConfigError as refused:
        say(refused)
"""


def test_a_missing_driver_is_one_sentence(path: Any, place: Place) -> None:
    with Child(WITHOUT_DRIVER, path, place.pool()) as child:
        [said] = child.rest()
    assert said == (
        'blueprint "db": a driver for PostgreSQL is not installed; install it with:'
        " pip install 'drydock-allocator[postgres]'"
    )
