"""From rows to records. A row that is not as Drydock writes it is told by name, and never stops the rows beside it.

Files are edited by hand, restored from half a backup, hit by a bad disk: a status that nobody knows, attributes that
are not JSON, a moment in the year 292277026596. Only what reading needs is looked at; `doctor` asks about the rest.
"""

import json
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

from ..errors import StoreDamaged, printable, quoted

Record = TypeVar("Record")
Status = TypeVar("Status")

END_OF_9999 = 253_402_300_800.0
#: moments that may never come
MAY_BE_NOTHING = frozenset(("granted_at", "ended_at", "rests_until", "until"))


class DamagedRow(StoreDamaged):
    """One row cannot be read: the `kind` with this `id`, for this `reason`."""

    def __init__(self, kind: str, id: int | str, reason: str) -> None:
        self.kind, self.id, self.reason = kind, id, reason
        super().__init__(f"{self.about} is damaged ({reason}); see: drydock doctor")

    @property
    def about(self) -> str:
        return f"{self.kind} {self.id if isinstance(self.id, int) else quoted(self.id)}"


def reads(kind: str) -> Callable[[Callable[[Any], Record]], Callable[[Any], Record]]:
    """Let a function that makes a record of a row raise `DamagedRow` when it cannot. The row begins with its id."""

    def decorate(read: Callable[[Any], Record]) -> Callable[[Any], Record]:
        @wraps(read)
        def checked(row: Any) -> Record:
            try:
                return read(row)
            except DamagedRow as other:
                raise DamagedRow(kind, row[0], f"its {other.about}: {other.reason}") from other
            except (ValueError, TypeError, RecursionError) as error:
                raise DamagedRow(kind, row[0], printable(error)) from error

        return checked

    return decorate


def check_texts(**columns: object) -> None:
    """Raise `TypeError` unless each of these columns holds text. All at once, as below: who is granted something waits for it."""
    for column, value in columns.items():
        if not isinstance(value, str):
            raise TypeError(f"{column}: not text")


@lru_cache(maxsize=1000)
def dump_texts(texts: tuple[str, ...]) -> str:
    """What `texts` reads."""
    return json.dumps(texts)


def pairs(value: object, column: str) -> dict[str, Any]:
    """The JSON object in a column."""
    if value == "{}":
        return {}
    found = _json(value, column)
    if not isinstance(found, dict):
        raise TypeError(f"{column}: not a JSON object")
    return found


@lru_cache(maxsize=1000)
def texts(value: object, column: str) -> tuple[str, ...]:
    """The JSON list of texts in a column."""
    if value == "[]":
        return ()
    found = _json(value, column)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"{column}: not a list of texts")
    return tuple(found)


@lru_cache(maxsize=100)
def status_of(kind: Callable[[Any], Status], value: object) -> Status:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"unknown status {quoted(value)}") from None


def check_moments(**columns: object) -> None:
    """Raise `ValueError` unless each of these columns holds a moment, or nothing where that is allowed."""
    for column, value in columns.items():
        if value is None and column in MAY_BE_NOTHING:
            continue
        if not isinstance(value, float | int) or not 0 <= value < END_OF_9999:
            raise ValueError(f"{column}: not a moment: {printable(value)}")


def _json(value: object, column: str) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"{column}: not text")
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError(f"{column}: not JSON") from None
