"""Store files that are not what they should be: other things, damaged, foreign, newer, locked, full or gone."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Cli, Ran, apply
from in_process import InProcess

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.errors import DrydockError, StoreDamaged, StoreError
from drydock.model import Demand
from drydock.store import sqlite
from drydock.store.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteStore
from drydock.testing.children import Child

from .planting import plant
from .privileges import UNPRIVILEGED, Enterable
from .refusals import check_refused, content

VERBS = (["leases"], ["lease", "-t", "host", "--no-wait"], ["doctor"], ["release", "1"])
LAB = {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1"]}}}


def tell(*words: str, environment: Mapping[str, str], program: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, env=environment
    )
    return Ran(done.args, done.returncode, done.stdout, done.stderr)


# ---- names that are no store


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


def folder_is_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def link_to_a_store(path: Path) -> None:
    SqliteStore.open(str(path.with_name("target.db"))).close()
    path.symlink_to("target.db")


def hard_link(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    path.with_name("second.db").hardlink_to(path)


def open_to_all(path: Path) -> None:
    path.parent.chmod(0o777)


def text_file(path: Path) -> None:
    path.write_text("This is no database, whatever its name says.\n" * 100)


def random_bytes(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(8192))


def foreign_database(path: Path) -> None:
    plant(path, "CREATE TABLE t (x)", "PRAGMA application_id = 42")


def unnamed_database(path: Path) -> None:
    plant(path, "CREATE TABLE lease (id INTEGER PRIMARY KEY)")


def newer_schema(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    plant(path, "PRAGMA user_version = 7")


def no_tables(path: Path) -> None:
    plant(path, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}")


def table_missing(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    plant(path, "DROP TABLE lease")


def half(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    os.truncate(path, path.stat().st_size // 2)


def log_is_a_folder(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    Path(f"{path}-wal").mkdir()


def log_is_a_link(path: Path) -> None:
    SqliteStore.open(str(path)).close()
    path.with_name("victim").write_text("mine")
    Path(f"{path}-wal").symlink_to("victim")


#: id, how the path is prepared, words of the sentence, exit code
NO_STORES: list[tuple[str, Callable[[Path], object], Sequence[str], int]] = [
    ("DB-002", lambda path: path.parent.rmdir(), ["no such directory"], 7),
    ("DB-003", folder_is_a_file, ["not a directory"], 7),
    ("DB-004-fifo", fifo, ["is not a regular file"], 7),
    ("DB-004-socket", unix_socket, ["is not a regular file"], 7),
    ("DB-004-folder", Path.mkdir, ["is not a regular file"], 7),
    ("DB-005", link_to_a_store, ["is a symbolic link", "target"], 9),
    ("DB-006", lambda path: path.symlink_to("nothing"), ["is a symbolic link"], 9),
    ("DB-007-loop", lambda path: path.symlink_to(path.name), ["is a symbolic link"], 9),
    ("DB-008", hard_link, ["has 2 names (hard links)"], 9),
    ("DB-009", open_to_all, ["is writable by everyone"], 9),
    ("DB-013", text_file, ["not a drydock store"], 8),
    ("DB-014", random_bytes, ["not a drydock store"], 8),
    ("DB-015", foreign_database, ["is not a drydock store"], 8),
    ("DB-015-unnamed", unnamed_database, ["is not a drydock store"], 8),
    ("DB-016", no_tables, ["is incomplete (no such table"], 8),
    ("DB-016-one", table_missing, ["is incomplete (no such table: lease)"], 8),
    ("DB-017", half, ["is damaged or not a drydock store"], 8),
    ("DB-029", log_is_a_folder, ["cannot be used"], 7),
    ("DB-029-link", log_is_a_link, ["cannot be used"], 7),
    ("DB-052", newer_schema, [f"has schema 7, this drydock knows up to {SCHEMA_VERSION}: upgrade drydock"], 8),
]  # fmt: skip


@pytest.mark.parametrize(("id", "prepare", "words", "code"), NO_STORES, ids=[row[0] for row in NO_STORES])
def test_no_store(
    id: str, prepare: Callable[[Path], object], words: Sequence[str], code: int, drydock: InProcess, tmp_path: Path
) -> None:
    """Every verb says so, and makes nothing beside it that was not there."""
    path = tmp_path / "folder" / "x.db"
    path.parent.mkdir()
    prepare(path)
    for verb in VERBS:
        check_refused(drydock("--store", str(path), *verb), words, code)
    for name in ("nothing", "victim"):
        other = path.with_name(name)
        assert not other.exists() or other.read_text() == "mine"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/tty", "/", "/etc/.."])
def test_no_file_of_ours(path: str, drydock: InProcess) -> None:
    """DB-004."""
    for verb in VERBS:
        check_refused(drydock("--store", path, *verb), ["is not a regular file"], 7)


def test_a_name_without_end(drydock: InProcess, tmp_path: Path) -> None:
    check_refused(drydock("--store", str(tmp_path / ("x" * 300)), "leases"), ["File name too long"], 7)


@pytest.mark.parametrize("verb", VERBS[:2])
def test_an_empty_file_becomes_a_store(verb: list[str], drydock: InProcess, pool: Path, tmp_path: Path) -> None:
    """DB-012, and DB-001: as one that is not there does."""
    for path in (tmp_path / "empty.db", tmp_path / "new.db"):
        if path.name == "empty.db":
            path.touch()
        assert drydock("--store", str(path), *verb).returncode in (0, 5)
        assert drydock("--store", str(path), "apply", str(pool)).returncode == 0
        assert drydock("--store", str(path), "doctor").returncode == 0


def test_doctor_makes_no_store(drydock: InProcess, path: Path) -> None:
    check_refused(drydock("doctor"), ["there is no store at", "drydock apply FILE"], 7)
    assert list(path.parent.iterdir()) == []


# ---- odd, but ours


@pytest.fixture
def leased(pool: Path, drydock: InProcess, path: Path) -> Path:
    """The pool's store, with one lease in it; returns its path."""
    assert drydock("lease", "-t", "host", "-b", "lab", "--json").returncode == 0
    return path


def works(drydock: InProcess, path: Path) -> bool:
    """Whether the store that `leased` made still does all that it should."""
    before = [json.loads(line)["id"] for line in drydock("--store", str(path), "leases", "--json").stdout.splitlines()]
    told = drydock("--store", str(path), "lease", "-t", "host", "--no-wait", "--json")
    assert told.returncode == 0, told.stderr
    assert drydock("--store", str(path), "release", str(json.loads(told.stdout)["id"])).returncode == 0
    doctor = drydock("--store", str(path), "doctor")
    assert doctor.returncode == 0, doctor.stdout
    return before == [1]


@pytest.mark.parametrize("size", [512, 65536])
def test_another_page_size(size: int, leased: Path, drydock: InProcess) -> None:
    """DB-021, DB-022: with the log that a rollback journal is, which is changed back."""
    plant(leased, "PRAGMA journal_mode = DELETE", f"PRAGMA page_size = {size}", "VACUUM")
    assert works(drydock, leased)
    connection = sqlite3.connect(leased)
    assert connection.execute("PRAGMA page_size").fetchone() == (size,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_another_text_encoding(leased: Path, drydock: InProcess, tmp_path: Path) -> None:
    """DB-021."""
    source, target = sqlite3.connect(leased), sqlite3.connect(tmp_path / "wide.db")
    target.execute("PRAGMA encoding = 'UTF-16'")
    target.executescript("\n".join(source.iterdump()))
    for pragma in ("application_id", "user_version"):
        target.execute(f"PRAGMA {pragma} = {source.execute(f'PRAGMA {pragma}').fetchone()[0]}")
    source.close()
    target.close()
    assert works(drydock, tmp_path / "wide.db")


def copy_with_log(store: Path, folder: Path) -> Path:
    """The database and its log as they are now, without the shared memory."""
    folder.mkdir()
    # By another process: that we close the file would drop the locks that SQLite holds on it in this one.
    subprocess.run(["cp", str(store), f"{store}-wal", str(folder)], check=True)
    return folder / store.name


@pytest.fixture
def logged(connect: Callable[..., Engine], path: Path, tmp_path: Path) -> Path:
    """A copy of a store and its log, with all that was done in the log alone."""
    engine = connect()
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2", "h3"]}}})
    engine.lease(Demand("host"), owner="tester", keep=True)
    return copy_with_log(path, tmp_path / "copy")


def test_the_log_without_the_shared_memory(logged: Path, drydock: InProcess) -> None:
    """DB-024."""
    assert works(drydock, logged)


@pytest.mark.parametrize("garbage", [b"", b"x" * 100, bytes(40_000), random.Random(2).randbytes(40_000)], ids=["empty", "short", "zeros", "random"])  # fmt: skip
def test_shared_memory_of_garbage(garbage: bytes, logged: Path, drydock: InProcess) -> None:
    """DB-028."""
    Path(f"{logged}-shm").write_bytes(garbage)
    assert works(drydock, logged)


@pytest.mark.parametrize("garbage", [b"x" * 100, bytes(40_000), random.Random(3).randbytes(40_000)], ids=["short", "zeros", "random"])  # fmt: skip
def test_a_log_of_garbage(garbage: bytes, leased: Path, drydock: InProcess) -> None:
    """DB-025: it is no log, so it is ignored."""
    Path(f"{leased}-wal").write_bytes(garbage)
    assert works(drydock, leased)


def test_a_huge_log(leased: Path, drydock: InProcess) -> None:
    """DB-030."""
    Path(f"{leased}-wal").touch()
    os.truncate(f"{leased}-wal", 10 * 2**30)
    assert works(drydock, leased)


def test_a_log_that_ends_early_ends_with_a_whole_commit(
    path: Path, connect: Callable[..., Engine], drydock: InProcess, tmp_path: Path
) -> None:
    """DB-026."""
    engine = connect()
    apply(engine, {"blueprint": {"lab": {"kind": "host-pool", "hosts": ["h1", "h2", "h3"]}}})
    engine.store.close()  # with its log, so that the next one is as long as what is in it
    engine = connect()
    sizes = []
    for _ in range(3):
        engine.lease(Demand("host"), owner="tester", keep=True)
        sizes.append(Path(f"{path}-wal").stat().st_size)
    whole = copy_with_log(path, tmp_path / "copy")
    log = Path(f"{whole}-wal").read_bytes()
    frame = 24 + 2048
    cuts = [(size + moved, number) for number, size in enumerate(sizes, start=1) for moved in (0, 1, 24, frame - 1)]
    cuts += [(size - moved, number) for number, size in enumerate(sizes) for moved in (1, frame - 1, frame, frame + 1)]
    for number, (cut, leases) in enumerate(cuts):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        shutil.copy(whole, folder / "x.db")
        (folder / "x.db-wal").write_bytes(log[:cut])
        store = SqliteStore.open(str(folder / "x.db"))
        try:
            assert [lease.id for lease in store.leases.live()] == list(range(1, min(leases, 3) + 1)), cut
            assert len(store.resources.live()) == leases
        finally:
            store.close()
        assert drydock("--store", str(folder / "x.db"), "doctor").returncode == 0


# ---- damaged


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_are_told_or_do_no_harm(seed: int, leased: Path, drydock: InProcess, tmp_path: Path) -> None:
    """DB-018: 200 random bytes in one page; then one byte in each."""
    chance = random.Random(seed)
    data = bytearray(leased.read_bytes())
    page = chance.randrange(len(data) // 2048) * 2048
    places = [page + chance.randrange(2048) for _ in range(200)]
    if seed % 2:
        places = [start + chance.randrange(2048) for start in range(0, len(data), 2048)]
    for place in places:
        data[place] = chance.randrange(256)
    damaged = tmp_path / "damaged.db"
    for verb in (*VERBS, ["resources", "--all"], ["blueprints"], ["bindings"], ["locks"], ["log"], ["leases", "--all"]):
        damaged.write_bytes(data)
        for name in ("-wal", "-shm"):
            Path(f"{damaged}{name}").unlink(missing_ok=True)
        done = drydock("--store", str(damaged), *verb)
        assert done.returncode in (0, 3, 5, 8), done.stderr
        if done.returncode == 8 and verb != ["doctor"]:
            assert done.stderr.count("drydock: ") >= 1


def test_an_index_that_lacks_rows(leased: Path, drydock: InProcess) -> None:
    """DB-020: the decisions go by index, so one that lies is a broken promise."""
    hide = "DELETE FROM sqlite_schema WHERE name = 'lease_live'"
    with contextlib.closing(sqlite3.connect(leased)) as reader:
        saved = reader.execute("SELECT * FROM sqlite_schema WHERE name = 'lease_live'").fetchone()
    plant(leased, "PRAGMA writable_schema = ON", hide)
    plant(leased, "UPDATE lease SET resource = 2 WHERE id = 1")
    connection = sqlite3.connect(leased, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", saved)
    connection.close()
    done = drydock("doctor")
    assert done.returncode == 8
    assert "damaged: the database is damaged: row 1 missing from index lease_live" in done.stdout


def test_the_row_that_says_what_is_offered_is_gone(leased: Path, drydock: InProcess) -> None:
    plant(leased, "DELETE FROM store")
    check_refused(drydock("lease", "-t", "host"), ["is incomplete", "restore a backup"], 8)


def test_ids_that_are_used_up(leased: Path, drydock: InProcess) -> None:
    """DB-065."""
    plant(leased, "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'lease'")
    before = content(leased)
    check_refused(drydock("lease", "-t", "host"), ['the ids of "lease"', "are used up"], 8)
    assert content(leased) == before
    assert drydock("leases").returncode == 0


# ---- changed under our feet


def refused(do: Callable[[], object], kind: type[DrydockError], words: str) -> None:
    with pytest.raises(kind, match=words):
        do()


def test_a_store_that_is_unlinked_while_open(engine: Engine, path: Path) -> None:
    """DB-048: SQLite alone would report success."""
    apply(engine, LAB)
    path.unlink()
    refused(
        lambda: engine.lease(Demand("host"), owner="tester", wait_seconds=0),
        StoreDamaged,
        "deleted or replaced while in use",
    )
    assert not path.exists()


def test_a_store_that_is_replaced_while_open(engine: Engine, path: Path, tmp_path: Path) -> None:
    """DB-049."""
    apply(engine, LAB)
    SqliteStore.open(str(tmp_path / "other.db")).close()
    (tmp_path / "other.db").rename(path)
    refused(
        lambda: engine.lease(Demand("host"), owner="tester", wait_seconds=0),
        StoreDamaged,
        "deleted or replaced while in use",
    )
    refused(lambda: engine.release(1), StoreDamaged, "deleted or replaced while in use")


def test_a_new_schema_that_appears_while_open(engine: Engine, path: Path) -> None:
    """DB-056."""
    apply(engine, LAB)
    [lease] = engine.lease(Demand("host"), owner="tester", wait_seconds=0)
    plant(path, "PRAGMA user_version = 99")
    before = content(path)
    refused(
        lambda: engine.lease(Demand("host"), owner="tester", wait_seconds=0),
        StoreDamaged,
        "has schema 99, .*upgrade drydock",
    )
    refused(lambda: engine.release(lease.id), StoreDamaged, "has schema 99")
    assert content(path) == before


def test_a_request_whose_store_is_deleted_ends(cli: Cli, pool: Path, path: Path) -> None:
    assert cli("lease", "-t", "host", "--count", "4").returncode == 0
    waiting = cli.start("lease", "-t", "host")
    assert waiting.stderr is not None
    assert "waiting for host" in waiting.stderr.readline()
    path.unlink()
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (8, "")
    [sentence] = err.splitlines()
    assert sentence.startswith("drydock: ")
    assert "deleted or replaced while in use" in sentence


# ---- locked


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience for a moment alone."""
    monkeypatch.setattr(sqlite, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)


INSIDE = """
from drydock.store.sqlite import SqliteStore
store = SqliteStore.open(sys.argv[1])
with store.write():
    say("inside")
    hear()
"""

FOREIGN = """
import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.executescript(sys.argv[2])
say("locked")
hear()
"""


@pytest.mark.usefixtures("hurried")
def test_locked_by_a_writer_that_was_stopped(leased: Path, drydock: InProcess) -> None:
    """DB-044, DB-069."""
    before = content(leased)
    with Child(INSIDE, leased) as child:
        child.expect("inside")
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        for verb in (["lease", "-t", "host"], ["release", "1"], ["leases"]):
            check_refused(drydock(*verb), ["was busy for 0.2s", "or was stopped inside it"], 7)
        assert content(leased) == before
        os.kill(child.pid, signal.SIGCONT)
        child.tell()
        child.rest()
    assert works(drydock, leased)


LOCKS = ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE", "PRAGMA locking_mode = EXCLUSIVE; BEGIN; SELECT * FROM lease"]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("how", LOCKS)
def test_locked_by_a_foreign_program(how: str, leased: Path, drydock: InProcess) -> None:
    """DB-045, DB-046."""
    before = content(leased)
    with Child(FOREIGN, leased, how) as child:
        child.expect("locked")
        for verb in (["lease", "-t", "host"], ["release", "1"]):
            check_refused(drydock(*verb), ["was busy for 0.2s; another drydock or sqlite3 process holds it"], 7)
        child.tell()
        child.rest()
    assert content(leased) == before
    assert works(drydock, leased)


@pytest.mark.parametrize(("name", "words"), [(".lock", "drydock.db.lock"), (".live", "drydock.db.live")])
def test_a_neighbour_that_is_a_folder_or_a_link(
    name: str, words: str, drydock: InProcess, pool: Path, path: Path
) -> None:
    """DB-069."""
    neighbour = Path(f"{path}{name}")
    before = content(path)
    neighbour.unlink(missing_ok=True)
    neighbour.mkdir()
    check_refused(drydock("lease", "-t", "host"), ["cannot open", words], 7)
    neighbour.rmdir()
    neighbour.symlink_to("elsewhere")
    check_refused(drydock("lease", "-t", "host"), ["cannot open", words], 7)
    assert not path.with_name("elsewhere").exists()
    assert content(path) == before
    neighbour.unlink()
    assert drydock("lease", "-t", "host").returncode == 0


# ---- no room


def test_the_disk_is_full(engine: Engine, path: Path) -> None:
    """DB-038: nothing was leased, and when there is room again all is well."""
    apply(engine, LAB)
    store = engine.store
    assert isinstance(store, SqliteStore)

    def fill() -> None:
        while True:
            [lease] = engine.lease(Demand("host"), owner="x" * 255, wait_seconds=0)
            engine.release(lease.id)

    store.rows(f"PRAGMA max_page_count = {store.rows('PRAGMA page_count')[0][0]}")
    refused(fill, StoreError, "the disk of .* is full; nothing was changed")
    full = content(path)
    large = {"blueprint": {"large": {"kind": "host-pool", "hosts": [*map(str, range(999))]}}}
    refused(lambda: apply(engine, large), StoreError, "the disk of .* is full; nothing was changed")
    assert content(path) == full
    store.rows("PRAGMA max_page_count = 1000000")
    for held in store.leases.live():
        engine.release(held.id)
    assert engine.lease(Demand("host"), owner="tester", wait_seconds=0)
    assert [finding for finding in examine(store) if finding.broken] == []


def test_a_file_may_not_grow(cli: Cli, pool: Path, path: Path, tmp_path: Path) -> None:
    """DB-041: no death by SIGXFSZ."""
    hosts = ", ".join(f'"host-{n}"' for n in range(3000))
    (tmp_path / "many.toml").write_text(f'[blueprint.many]\nkind = "host-pool"\nhosts = [{hosts}]')
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    program = limited + "from drydock.cli import main; main()"
    before = content(path)
    done = tell("apply", str(tmp_path / "many.toml"), environment=cli.environment, program=program)
    check_refused(done, ["cannot be used (disk I/O error); nothing was changed"], 7)
    assert content(path) == before
    assert cli("doctor").returncode == 0


# ---- rights


def test_every_file_is_ours_alone_whatever_the_umask(cli: Cli, pool: Path, tmp_path: Path) -> None:
    """They have the right mode when they are made, so there is no moment at which others may read them."""
    folder = tmp_path / "state"
    opened = """
os.umask(0)
from drydock.cli.app import App
app = App(sys.argv[1])
app.engine.store.process
say(*(f"{name}:{os.stat(os.path.join(os.path.dirname(sys.argv[1]), name)).st_mode:o}" for name in sorted(os.listdir(os.path.dirname(sys.argv[1])))))
"""
    folder.mkdir()
    with Child(opened, folder / "x.db") as child:
        names = ["x.db", "x.db-shm", "x.db-wal", "x.db.live", "x.db.lock", "x.db.reserve"]
        assert child.hear().split() == [*(f"{name}:100600" for name in names), "x.db.wake:40700"]


def test_the_default_folder_is_ours_alone(cli: Cli, tmp_path: Path) -> None:
    environment = {name: value for name, value in cli.environment.items() if name != "DRYDOCK_STORE"}
    program = "import os; os.umask(0)\nfrom drydock.cli import main; main()"
    done = tell("leases", environment={**environment, "XDG_STATE_HOME": str(tmp_path / "state")}, program=program)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "state" / "drydock"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((made / "drydock.db").stat().st_mode) == 0o600


@pytest.fixture
def theirs(enterable: Enterable) -> Enterable:
    """A store made by somebody who may not do everything, with a pool in it."""
    file = enterable.folder / "pool.toml"
    file.write_text('[blueprint.lab]\nkind = "host-pool"\nhosts = ["h1"]')
    done = tell("apply", str(file), environment=enterable.environment, program=UNPRIVILEGED)
    assert done.returncode == 0, done.stderr
    return enterable


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


def test_a_folder_that_may_not_be_written(theirs: Enterable) -> None:
    """DB-032."""
    with mode(theirs.folder, 0o555):
        for verb in (["leases"], ["lease", "-t", "host"], ["doctor"]):
            done = tell(*verb, environment=theirs.environment, program=UNPRIVILEGED)
            check_refused(done, ['drydock.db"', "cannot be"], 7)
        elsewhere = {**theirs.environment, "DRYDOCK_STORE": str(theirs.folder / "new.db")}
        done = tell("leases", environment=elsewhere, program=UNPRIVILEGED)
        check_refused(done, ["cannot create", "new.db", "Permission denied"], 7)


def test_a_file_that_may_not_be_written(theirs: Enterable) -> None:
    with mode(theirs.store, 0o400):
        done = tell("lease", "-t", "host", environment=theirs.environment, program=UNPRIVILEGED)
        check_refused(done, ['drydock.db" cannot be written'], 7)
        assert tell("bindings", environment=theirs.environment, program=UNPRIVILEGED).returncode in (0, 7)


def test_a_log_that_may_not_be_written(theirs: Enterable) -> None:
    """DB-034."""
    log = Path(f"{theirs.store}-wal")
    log.touch(mode=0o444)
    done = tell("lease", "-t", "host", environment=theirs.environment, program=UNPRIVILEGED)
    check_refused(done, ["cannot be"], 7)


def test_a_turnstile_that_may_not_be_written(theirs: Enterable) -> None:
    """DB-069."""
    with mode(Path(f"{theirs.store}.lock"), 0):
        done = tell("lease", "-t", "host", environment=theirs.environment, program=UNPRIVILEGED)
        check_refused(done, ["drydock.db.lock", "permission denied"], 9)


def test_a_store_of_somebody_else(theirs: Enterable) -> None:
    """CLI-077: who is not root cannot make a file of somebody else's, and takes one that is its own and closed."""
    if os.geteuid() == 0:
        os.chown(theirs.store, 0, 0)
        words = ["permission denied (owner root, mode 0600)"]
    else:
        theirs.store.chmod(0)
        words = ["permission denied (owner ", ", mode 0000)"]
    done = tell("leases", environment=theirs.environment, program=UNPRIVILEGED)
    check_refused(done, words, 9)


CLOSES = """
import os
from drydock.blueprint import *
class Closes(Builder):
    type = "thing"
    def plans(self, wanted): yield Plan("p", (slot_lock("p"),))
    def activate(self, resource): os.chmod(os.environ["DRYDOCK_STORE"], 0)
"""


def test_a_hook_that_closes_the_store_to_its_users(theirs: Enterable, cli: Cli) -> None:
    """PLUGIN-073: who has it open goes on, and who comes is told whose it is, and how closed; that undone, nothing is lost."""
    kinds = theirs.folder / "kinds"
    kinds.mkdir()
    (kinds / "closes.py").write_text(CLOSES)
    file = theirs.folder / "closes.toml"
    file.write_text('[blueprint.b]\nkind = "closes"')
    environment = {"DRYDOCK_STORE": str(theirs.store), "DRYDOCK_BLUEPRINTS": str(kinds)}
    assert cli("apply", str(file), **environment).returncode == 0
    assert cli("lease", "-t", "thing", **environment).returncode == 0
    for verb in (["leases"], ["lease", "-t", "host"], ["release", "1"]):
        done = tell(*verb, environment=theirs.environment, program=UNPRIVILEGED)
        check_refused(done, ["permission denied (owner ", ", mode 0000)"], 9)
    theirs.store.chmod(0o600)
    assert [lease["type"] for lease in cli("leases", "--json", **environment).objects] == ["thing"]
    assert cli("doctor", **environment).returncode == 0
