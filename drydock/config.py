"""Read a pool file: what is there, is it meant, and nothing of what a kind makes of it.

A pool file is TOML: `[blueprint.NAME]` tables, and tables that blueprints of one kind share, such as `[almanac...]`.
Settings that every blueprint has are read here; the others are handed to the kind, which alone knows them.
"""

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .attributes import DEEPEST, check_name, clean, parse_duration
from .errors import ConfigError, Refused, printable, quoted

LARGEST_FILE_BYTES = 1024 * 1024
MOST_RESOURCES = 100_000
LEAST_LIFETIME_SECONDS = 0.1
LEAST_LOOK_SECONDS = 0.1
COMMON_SETTINGS = ("kind", "type", "seats", "limit", "grace", "cooldown", "lifetime", "ttl", "observe_every")
# A dotted key with too many parts. tomllib would take minutes for one that fills the file.
_DEEP_KEY = re.compile(
    rf"""(?:^|[\[{{,])[ \t]*+(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{DEEPEST}}}""", re.MULTILINE
)


class BlueprintConfig(NamedTuple):
    """One `[blueprint.NAME]` table."""

    name: str
    kind: str
    type: str | None
    seats: int | None  #: None: unlimited
    limit: int | None
    grace: float | None  #: seconds; None: what the kind says
    cooldown: float | None
    lifetime: float | None
    ttl: float | None
    observe_every: float | None
    settings: Mapping[str, Any]  #: the kind's own


class PoolFile(NamedTuple):
    """A pool file that was read and is well formed."""

    blueprints: tuple[BlueprintConfig, ...]
    sources: Mapping[str, Mapping[str, Any]]  #: the tables that are not blueprints


def read_pool_file(path: Path) -> PoolFile:
    """The pool file at `path`. Raises `ConfigError` naming file, place and value; `Refused` if it may not be read."""
    import tomllib  # not on the way of a lease

    where = printable(path)
    text = read_text(path, LARGEST_FILE_BYTES)
    if "\0" in text:
        raise ConfigError(f"{where}: invalid character U+0000 at line {text[: text.index(chr(0))].count(chr(10)) + 1}")
    if _DEEP_KEY.search(text):
        raise ConfigError(f"{where}: nested deeper than {DEEPEST}")
    try:
        return parse_pool(tomllib.loads(text.removeprefix("\ufeff")), where)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {printable(error)}") from error
    except RecursionError:
        raise ConfigError(f"{where}: nested deeper than {DEEPEST}") from None


def read_text(path: Path, largest_bytes: int) -> str:
    """The UTF-8 text of a regular file of at most so many bytes, read once. Raises `ConfigError` or `Refused`."""
    where = printable(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{where}: is a directory" if path.is_dir() else f"{where}: not a regular file")
        with path.open("rb") as file:
            data = file.read(largest_bytes + 1)
    except PermissionError as error:
        raise Refused(f"cannot read {where}: permission denied") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error
    return decoded(data, largest_bytes, where)


def decoded(data: bytes, largest_bytes: int, where: str) -> str:
    """The text in `data`, which was read up to one byte more than it may have. Raises `ConfigError`."""
    if len(data) > largest_bytes:
        raise ConfigError(f"{where}: larger than {largest_bytes // 1024} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}") from error


def parse_pool(data: object, where: str) -> PoolFile:
    """The pool file in `data`, a table as TOML gives it. Raises `ConfigError`."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a table, got {type(data).__name__}")
    tables = clean(data, where)
    given = tables.pop("blueprint", {})
    if not isinstance(given, dict):
        raise ConfigError(f'{where}: "blueprint" must be a table of tables, such as [blueprint.lab]')
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f'{where}: unknown key {quoted(name)}; did you mean "blueprint"?')
    seen: dict[str, str] = {}
    blueprints = []
    for name, table in given.items():
        check_name(name, f"{where}: blueprint")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ConfigError(f"{where}: blueprints {quoted(other)} and {quoted(name)} differ only by case")
        blueprints.append(_blueprint(name, table, f"{where}: blueprint {quoted(name)}"))
    return PoolFile(tuple(blueprints), tables)


def _blueprint(name: str, table: object, where: str) -> BlueprintConfig:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table")
    if "kind" not in table:
        raise ConfigError(f'{where}: missing "kind"; list the kinds with: drydock blueprints --kinds')
    type = table.get("type")
    return BlueprintConfig(
        name,
        check_name(table["kind"], f"{where}: kind"),
        None if type is None else check_name(type, f"{where}: type"),
        None if table.get("seats") == "unlimited" else _whole(table.get("seats", 1), f'{where}: "seats"'),
        None if "limit" not in table else _whole(table["limit"], f'{where}: "limit"'),
        _duration(table, "grace", where),
        _duration(table, "cooldown", where),
        _duration(table, "lifetime", where, least=LEAST_LIFETIME_SECONDS),
        _duration(table, "ttl", where),
        _duration(table, "observe_every", where, least=LEAST_LOOK_SECONDS),
        {key: value for key, value in table.items() if key not in COMMON_SETTINGS},
    )


def _whole(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= MOST_RESOURCES:
        raise ConfigError(f"{where} must be a whole number from 1 to {MOST_RESOURCES}, not {quoted(value)}")
    return value


def _duration(table: Mapping[str, Any], key: str, where: str, *, least: float = 0.0) -> float | None:
    if key not in table:
        return None
    if not isinstance(table[key], str):
        raise ConfigError(f'{where}: {quoted(key)} must be a duration such as "3m", not {quoted(table[key])}')
    return parse_duration(table[key], f"{where}: {quoted(key)}", least=least)
