"""Where a store may live, and with which modes its files are made."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Cli

from drydock.errors import Refused, StoreDamaged, StoreError
from drydock.store import files
from drydock.store.sqlite import SqliteStore

#: whether this system tells what is open by its name
SHOWS_NAMES = Path("/proc/self/fd").is_dir()

ROOT = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


def mount(point: str, filesystem: str) -> str:
    return f"36 22 0:32 / {point} rw shared:2 master:1 - {filesystem} source rw,errors=continue\n"


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    return tmp_path / "mountinfo"


# ---- is it still there


def test_what_is_open_is_known_by_its_name(path: Path) -> None:
    """Moved away, replaced, gone: whatever has happened to the name, what was open before is not what has it."""
    path.write_text("this")
    fd = os.open(path, os.O_RDONLY)
    other = path.with_name("other")
    assert files.is_open_at(str(path), fd) == SHOWS_NAMES
    assert not files.is_open_at(str(other), fd)
    path.rename(other)
    assert not files.is_open_at(str(path), fd)
    path.write_text("that")
    assert not files.is_open_at(str(path), fd)
    path.rename(other)
    assert not files.is_open_at(str(other), fd)
    os.close(fd)
    assert not files.is_open_at(str(path), fd)


@pytest.mark.parametrize("shown", [True, False], ids=["by name", "by a look"])
def test_a_store_is_known_by_both_its_files_and_its_log_is_not_looked_at_for_that(
    path: Path, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    """A look at the log would let the next who writes it write the times of the file, too."""
    store = SqliteStore.open(str(path))
    looked: list[str | int] = []
    look = files.identity
    monkeypatch.setattr(files, "identity", lambda file: looked.append(file) or look(file))
    if not shown:
        monkeypatch.setattr(files, "is_open_at", lambda *_: False)
    with store.write():
        store.events.add("kept")
    log = path.with_name(f"{path.name}-wal")
    assert str(path) in looked
    assert (str(log) in looked) == (not shown or not SHOWS_NAMES)
    log.rename(path.with_name("log"))
    with pytest.raises(StoreDamaged, match="or its log was deleted or replaced"), store.write():
        store.events.add("lost")
    log.write_bytes(path.with_name("log").read_bytes())
    with pytest.raises(StoreDamaged, match="or its log was deleted or replaced"), store.write():
        store.events.add("lost")


# ---- modes


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_all_files_of_a_store_are_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    store = SqliteStore.open(str(path))
    with store.write():
        store.events.add("x", process=store.process)
    modes = {str(file)[len(str(path)) :]: file.stat().st_mode & 0o7777 for file in path.parent.rglob("*")}
    store.close()
    files = ("", "-wal", "-shm", ".lock", ".live", ".reserve", ".wake/turn")
    assert modes == {**dict.fromkeys(files, 0o600), ".wake": 0o700}


@pytest.mark.usefixtures("no_umask")
def test_folders_made_for_the_default_store_are_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "drydock" / "drydock.db"
    SqliteStore.open(str(path), make_parents=True).close()
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    with pytest.raises(StoreError, match="no such directory"):
        SqliteStore.open(str(tmp_path / "elsewhere" / "drydock.db"))


# ---- names


def test_one_file_is_one_store_however_its_folder_is_spelt(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    first = SqliteStore.open(str(tmp_path / "real" / "s.db"))
    second = SqliteStore.open(str(tmp_path / "link" / ".." / "link" / "s.db"))
    assert first.path == second.path == str(tmp_path / "real" / "s.db")
    second.patience_seconds = 0.0
    first.close()
    second.close()


@pytest.mark.parametrize("name", ["a?mode=memory", "a#b", "a%20b", "a b", "ü", "a;b", "a&cache=shared"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    store = SqliteStore.open(str(path))
    with store.write():
        store.events.add("here")
    assert {file.name for file in tmp_path.iterdir()} >= {name, f"{name}-wal", f"{name}.lock"}
    store.close()


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(Refused, match="symbolic link"):
        SqliteStore.open(str(path))
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_file_with_two_names_is_refused(path: Path, tmp_path: Path) -> None:
    SqliteStore.open(str(path)).close()
    os.link(path, tmp_path / "other.db")
    for name in (path, tmp_path / "other.db"):
        with pytest.raises(Refused, match="hard links"):
            SqliteStore.open(str(name))


def test_what_is_not_a_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="not a regular file"):
        SqliteStore.open(str(path))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="not a regular file"):
        SqliteStore.open(str(path))


def test_a_folder_that_everybody_may_write_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(Refused, match="writable by everyone"):
        SqliteStore.open(str(folder / "drydock.db"))
    assert list(folder.iterdir()) == []
    folder.chmod(0o1777)
    SqliteStore.open(str(folder / "drydock.db")).close()


@pytest.mark.parametrize("neighbour", [".lock", ".live"])
def test_a_symbolic_link_in_place_of_a_neighbour_is_not_followed(path: Path, tmp_path: Path, neighbour: str) -> None:
    (tmp_path / ("drydock.db" + neighbour)).symlink_to(tmp_path / "victim")

    def use() -> None:
        store = SqliteStore.open(str(path))
        try:
            assert store.process
        finally:
            store.close()

    with pytest.raises(StoreError, match="cannot open"):
        use()
    assert not (tmp_path / "victim").exists()


# ---- filesystems


def test_the_filesystem_is_that_of_the_innermost_mount(mounts: Path) -> None:
    mounts.write_text(ROOT + mount("/srv/data", "xfs") + mount("/srv", "nfs4") + mount("/srv/data/deep", "tmpfs"))
    found = {f: files.filesystem_of(f, str(mounts)) for f in ("/", "/srv", "/srv/data", "/srv/data2", "/srv/data/x/y")}
    assert found == {"/": "ext4", "/srv": "nfs4", "/srv/data": "xfs", "/srv/data2": "nfs4", "/srv/data/x/y": "xfs"}
    assert files.filesystem_of("/srv/data/deep/x", str(mounts)) == "tmpfs"


def test_of_two_mounts_on_one_folder_the_later_is_seen(mounts: Path) -> None:
    mounts.write_text(ROOT + mount("/srv", "ext4") + mount("/srv", "nfs"))
    assert files.filesystem_of("/srv/x", str(mounts)) == "nfs"


@pytest.mark.parametrize(
    ("escaped", "folder"),
    [(rb"/a\040b", "/a b"), (rb"/a\011b", "/a\tb"), (rb"/a\134b", "/a\\b"), ("/ü".encode(), "/ü"),
     (b"/a\xffb", os.fsdecode(b"/a\xffb")), (rb"/a\134040b", "/a\\040b")],
)  # fmt: skip
def test_mount_points_are_read_as_the_kernel_writes_them(mounts: Path, escaped: bytes, folder: str) -> None:
    mounts.write_bytes(ROOT.encode() + b"36 22 0:32 / " + escaped + b" rw - nfs source rw\n")
    assert files.filesystem_of(folder, str(mounts)) == "nfs"
    assert files.filesystem_of("/else", str(mounts)) == "ext4"


def test_without_a_list_of_mounts_nothing_is_known(mounts: Path) -> None:
    assert files.filesystem_of("/", str(mounts)) is None


@pytest.mark.parametrize("filesystem", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "afs", "fuse.sshfs"])
def test_a_network_filesystem_is_refused(
    path: Path, mounts: Path, filesystem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts.write_text(ROOT + mount(str(path.parent), filesystem))
    monkeypatch.setattr(files.filesystem_of, "__defaults__", (str(mounts),))
    with pytest.raises(Refused, match=f"network filesystem .{filesystem}."):
        SqliteStore.open(str(path))
    assert not path.exists()
    mounts.write_text(ROOT + mount(str(path.parent), "fuse.ext4"))
    SqliteStore.open(str(path)).close()


def test_a_package_that_cannot_be_read_keeps_nobody_from_making_a_store(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sqlite-utils would look for plugins among all packages; none has anything to do in our database."""
    poor = tmp_path / "poor-1.0.dist-info"
    poor.mkdir()
    (poor / "METADATA").write_text("Metadata-Version: 2.1\nName: poor\nVersion: 1.0\n")
    (poor / "entry_points.txt").write_text("[sqlite_utils]\npoor")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Cli(str(path))("locks")
    assert (made.returncode, "damaged" in made.stderr, path.exists()) == (0, False, True)
