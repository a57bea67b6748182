"""The only room that knows SQL. `open_store` picks the dialect and imports its driver.

Paths are plain strings in this room: pathlib and what it imports would cost every command a tenth of its start-up.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError, StoreError, quoted

if TYPE_CHECKING:
    from .base import Store
    from .postgres import PostgresStore
    from .sqlite import SqliteStore

DEFAULT_NAME = "drydock/drydock.db"


def store_address(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The store that is meant: `given`, else `DRYDOCK_STORE`, else the default below `XDG_STATE_HOME`."""
    if given is not None:
        return given
    if "DRYDOCK_STORE" in environment:
        return environment["DRYDOCK_STORE"]
    return os.path.join(state_folder(environment), DEFAULT_NAME)


def state_folder(environment: Mapping[str, str] = os.environ) -> str:
    """Where programs of this user keep what they know."""
    return environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")


def open_store(given: str | None = None, *, read_only: bool = False) -> "Store":
    """The store at the path or URL `given` (see `store_address`), made on first use unless `read_only`.

    Raises `ConfigError` for an address that cannot be meant, `Refused` for a file that is not safe to use,
    `StoreError` for one that cannot be used, `StoreDamaged` for one that is not ours.
    """
    address = store_address(given)
    kind = _kind(address)
    if given is None and "DRYDOCK_STORE" not in os.environ:
        from .sqlite import SqliteStore

        return SqliteStore.open(address, read_only=read_only, make_parents=True)
    return kind.open(address, read_only=read_only)


class Place(NamedTuple):
    """Where a store is, or could be."""

    address: str
    store: "Store | None"  #: to be read; None: there is none, and one can be made


def find_store(address: str) -> Place:
    """Look at this path or URL, and change nothing. Raises as `open_store` does, also where no store could be made."""
    return Place(*_kind(address).find(address))


def _kind(address: str) -> "type[SqliteStore] | type[PostgresStore]":
    """What the address is one of, imported when it is needed."""
    if not address:
        raise ConfigError("the store is empty: give a path, or leave --store and DRYDOCK_STORE away")
    if "\0" in address:
        raise ConfigError(f"the store {quoted(address)} contains a NUL character")
    scheme, separator, _ = address.partition("://")
    if address.startswith("file:"):
        raise ConfigError(f"the store is a path, not a URI: {quoted(address)}")
    if separator and scheme in ("postgresql", "postgres"):
        try:
            from .postgres import PostgresStore
        except ImportError as missing:
            raise StoreError(
                "a store in PostgreSQL needs a driver that is not installed; install it with:"
                ' pip install "drydock-allocator[postgres]"'
            ) from missing

        return PostgresStore
    if separator:
        raise ConfigError(
            f"unsupported store {quoted(scheme + '://')}; give the path of an SQLite file, or postgresql://..."
        )
    from .sqlite import SqliteStore

    return SqliteStore
