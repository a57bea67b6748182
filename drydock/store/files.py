"""Is this path safe to keep a store at? Looked at by name alone: the database file itself is never opened here.

Closing any descriptor of a file drops SQLite's own locks on it, and a committed write was lost that way. So the one
time that the file is opened here is before SQLite knows it: to make it, empty, with the right mode from the start.
"""

import os
import re
import stat

from ..errors import Refused, StoreError, quoted

#: SQLite's WAL needs memory that all users of the file share, which these do not give
NETWORK_FILESYSTEMS = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "lustre",
        "afs",
        "glusterfs",
        "ncpfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "beegfs",
    ]
)
MOUNTS = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")  # how the kernel writes what would end a field

Identity = tuple[int, int]  #: which file it is, whatever it is called


def identity(file: str | int) -> Identity | None:
    """Of what has this path, or this descriptor; None: nothing has."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_open_at(path: str, fd: int) -> bool:
    """Whether what is open as `fd` is still what has this path (see `resolve`), as far as the kernel tells that from names
    alone; False: `identity` knows.

    To look at a file makes its next write dearer: since 6.13 Linux gives a file whose times were looked at finer ones, and
    ext4 without a journal then writes those to the disk as well, by a journey of their own.
    """
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == path
    except OSError:  # another system, or nobody shows it
        return False


def resolve(path: str) -> str:
    """One absolute name for the file, however it was spelt, so that all processes agree on its neighbours' names."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def prepare(path: str, *, make_parents: bool) -> None:
    """Check that a store may live at `path` (see `resolve`), and make the file if it is not there.

    Raises `Refused` where using it would be unsafe, `StoreError` where it is impossible.
    """
    folder = os.path.dirname(path)
    if make_parents:
        try:
            os.makedirs(folder, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"cannot create {quoted(folder)}: {error.strerror}") from error
    check_folder(folder, path)
    if exists(path):
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        exists(path)  # another process was faster; the same rules hold for what it made
    except OSError as error:
        raise StoreError(f"cannot create {quoted(path)}: {error.strerror}") from error


def is_free(path: str) -> bool:
    """Whether a store can be made at `path` (see `resolve`): there is none, and the folder would have it. Raises as
    `prepare` does."""
    folder = os.path.dirname(path)
    check_folder(folder, path)
    if exists(path) and os.lstat(path).st_size:
        return False
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"cannot create {quoted(path)}: {quoted(folder)} cannot be written")
    return True


def exists(path: str) -> bool:
    """Whether there is a file that may be a store. Raises for anything else that has this name."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"cannot look at {quoted(path)}: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise Refused(f"the store {quoted(path)} is a symbolic link; give the name of its target")
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"the store {quoted(path)} is not a regular file")
    if status.st_nlink > 1:
        raise Refused(
            f"the store {quoted(path)} has {status.st_nlink} names (hard links); its log would split, so remove the others"
        )
    if not os.access(path, os.R_OK):
        raise Refused(
            f"cannot open {quoted(path)}: permission denied (owner {_user(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o})"
        )
    return True


def check_folder(folder: str, path: str) -> None:
    """Raise if `folder` is missing, can be tampered with by everybody, or lies on a network filesystem."""
    try:
        status = os.stat(folder)
    except OSError as error:
        reason = "no such directory" if isinstance(error, FileNotFoundError) else error.strerror
        raise StoreError(f"cannot use the store {quoted(path)}: {reason}: {quoted(folder)}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"cannot use the store {quoted(path)}: {quoted(folder)} is not a directory")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise Refused(
            f"the folder {quoted(folder)} of the store is writable by everyone; choose another, or: chmod o-w"
        )
    filesystem = filesystem_of(folder)
    if filesystem in NETWORK_FILESYSTEMS:
        raise Refused(
            f"the store {quoted(path)} is on a network filesystem ({filesystem}), where SQLite's locks do not hold; use a local disk"
        )


def filesystem_of(folder: str, mounts: str = MOUNTS) -> str | None:
    """The type of the filesystem that holds `folder`, or None where the system has no list of mounts."""
    try:
        with open(mounts, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return None
    wanted = os.fsencode(folder) + b"/"
    best, found = -1, None
    for line in filter(None, lines):
        left, _, right = line.partition(b" - ")
        point = _OCTAL.sub(lambda escape: bytes([int(escape[1], 8)]), left.split(b" ")[4])
        if len(point) >= best and wanted.startswith(point.rstrip(b"/") + b"/"):
            best, found = len(point), os.fsdecode(right.split(b" ")[0])
    return found


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
