"""Stores as earlier versions of Drydock left them."""

import contextlib
import sqlite3
from pathlib import Path

from drydock.store.sqlite import APPLICATION_ID


def make_schema_1(path: Path, root: Path) -> None:
    """A store of schema 1 at `path`, with scratch directories in the folder `root`.

    It is a dump of what that version wrote: two hosts (leases 2 and 3; lease 1 is over), a scratch directory (lease 4), and
    two requests that wait for a host, "first" (5) and "second" (6), whose processes are gone.
    """
    root.mkdir()
    (root / ".drydock-root").touch()
    (root / "scratch-0").mkdir()
    dump = (Path(__file__).parent / "schema_1.sql").read_text().replace("/srv/scratch", str(root))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
    path.chmod(0o600)
